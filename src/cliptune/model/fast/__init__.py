"""The towers in fewer operations, with the results of `transformers` and PEFT."""
