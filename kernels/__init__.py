"""The operations of the models: what each one means, and later how each one is done fast."""
