"""What a session holds, as blobs of bytes and one JSON text, and back: for a session that is to outlive its process.

    graphs     which results still need their graph of autograd, and what stands for one that is gone
    parts      the words of the text: plain values, and what can be said of an object
    taking     a store -> the text and its blobs
    restoring  the text and its blobs -> a store; nothing that was written is believed

A graph of autograd cannot be written down. What was computed through one keeps its value; a backward through it says
that the graph is gone. What cannot be kept at all becomes the result of a failed call, whose error names it. There are
no pickles. Knows torch; does not know files, secrets or the numbers of batches.
"""
