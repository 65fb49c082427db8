"""Figures, pictures and samples of what is reported: pure functions, which know nothing of registries.

numpy, pandas, plotly and matplotlib have their home here, and are imported only where a caller asks for what is theirs.
"""
