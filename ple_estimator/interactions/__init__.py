"""Interactions: what a model does with the columns beside its experts.

Experts of dense layers learn products of embeddings only from very many rows.
The classes here compute such products, or first-order weights, themselves and
give them to the experts or add them to the logits. Each is bound to
`Model.interactions`; `combined` puts them together. Imports data and below.
"""
