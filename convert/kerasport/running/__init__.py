"""Proof by running: what a generated module computes, layer by layer, beside what Keras computes.

That weights are the same bit for bit does not show that the module around them is right: an
epsilon, a padding or an order of gates may be wrong. Only running both does. Frameworks are
imported inside functions, and Keras only where it is asked: whoever has none runs the module on
inputs and outputs that were stored with it.
"""
