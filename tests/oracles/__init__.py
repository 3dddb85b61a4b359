"""Reference implementations in NumPy float64, written from the page algorithms.md alone.

Every quantity under sg(.) is a separate argument, so that the finite difference of a loss in the
parameters of one network is exactly the gradient that network should receive. All noise is an argument.
"""
