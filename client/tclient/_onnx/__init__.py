"""Graphs of ONNX as modules of tclient: read, checked whole, and run node by node with the functions of tclient.

    reading     a file or its bytes as plain data: `Graph`, `Node`; the only part that imports the package onnx
    operators   the table of operators, which the files beside it fill: what runs a node
    folding     the operators that numpy runs here: on constants, and on the sizes of tensors
    plan        which nodes are run where and in what order, or why the graph is refused
    module      the module that runs a plan

What the elements of computed tensors are is never asked. Nothing is sent before a graph is found to be whole.
"""
