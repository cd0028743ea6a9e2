"""The forms in which a model can compute, by name. What they are is in `models.export`; nothing here imports torch."""

FORMS = ("eager", "onnx", "onnx-w8")


class FormError(Exception):
    """A form that cannot be made here; the message says what is missing."""
