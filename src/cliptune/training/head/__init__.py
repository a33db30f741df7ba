"""The head that frozen features give before any adapter, fitted by cross-validation."""
