"""The columns of files: what each holds and how it becomes model input.

A column becomes model input in two steps. `parse` turns what a file holds (text
from CSV, typed arrays from Parquet) into an Arrow array of one type and says
which rows are bad. `encode` turns a tensor of that type into ids or numbers, by
TensorFlow ops alone, so that training, prediction and a served model agree.
column_kinds.py has the kinds by the names that .gin files call them.

Imports what data may import, and of data itself only arrow_values.
"""
