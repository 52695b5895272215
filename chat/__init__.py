"""One turn, from question to answer.

The data path: `api` takes a question and asks `turns` to begin a turn, which one atomic script in
Redis does once. The turn's own task chooses the messages that fit (`turns.context`), sends them to
the model (`upstream`) and appends the answer as records to the turn's `log`. Records are committed
to Redis in batches. Only committed records are encoded as frames (`formats`) and sent to viewers,
whose connections `api` holds: no request handler drives the generation.

The scripts that begin and finish turns, and those that change conversations, also append an event
to a stream of the owner in Redis. `events` delivers it to the owner's other clients.
"""
