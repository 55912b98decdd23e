"""Models over many engines: each is on some of them, and all answer under one name.

    upstream      forward passes on a stream to another process of the house
    elsewhere     an engine's side: what others have, and asking the front
    messages      what is said in those RPCs
    service       an engine's side: the RPCs by which the front moves models
    links         the front's side: those RPCs
    sums          statistics of several engines, added up
    records       what the front knows of each model
    spreading     where models are, and how they come there
    coordinator   changes: one after the other for each name, on all engines that have it
    choosing      which replica runs a request
    streams       forward passes of one caller, each on the replica with the least to do
    servicer      ModelService, as the front answers it
    cluster       in the place of these, where a front of many keeps them for all
    inference     the Open Inference Protocol's models, as the front has them

The front writes models to disk, and no engine does. Each knows only those above it. Knows no torch.
"""
