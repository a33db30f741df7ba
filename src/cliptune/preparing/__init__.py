"""Any labelled photos to train/, val/ and test/: chosen, shared out, built whole."""
