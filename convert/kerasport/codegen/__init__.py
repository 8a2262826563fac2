"""From a model's configuration to the source of a PyTorch module that computes the same.

Nothing is run, neither Keras nor what the file says: the architecture is read as data, each layer
is looked up in a table, and the tensors are named as `transpose` names them, so that the state dict
beside the module loads into it with `strict=True`.
"""

from kerasport.codegen.module import source

__all__ = ["source"]
