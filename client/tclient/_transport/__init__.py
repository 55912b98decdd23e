"""Every RPC, stream, thread, reconnection, credential and deadline of the client, through one gate: Channel."""
