"""The page for people, beside /metrics: what it shows is read from JSON, and changes nothing.

    paging          lists in pieces: searched, in an order, from some row on
    tensors         a list of the tensors of a session for all who watch, and statistics of a sample of one
    engine_page     what there is to tell of one engine
    house_page      the same of many engines, each asked by the front
    routes          the paths of HTTP, and the files that a browser is given (assets)

A caller is shown what it may use: its own, and to an administrator all. What is another's is not there. No secret of a
session leaves, and nothing is worked out while nobody looks.
"""
