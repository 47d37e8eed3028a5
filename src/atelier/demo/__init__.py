"""The model in a page: exported to ONNX, painted with in the reader's browser (``docs/demo.md``)."""
