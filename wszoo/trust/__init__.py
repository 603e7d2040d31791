"""Who vouches for an index: keys, signatures, and the one place that decides before anything of a model is read.

:mod:`~wszoo.trust.decision` is the pure core; :mod:`~wszoo.trust.vouching` fetches what it asks for.
"""
