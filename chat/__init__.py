"""One turn, from question to answer.

The data path: `api` takes a question and asks `turns` to begin a turn, which one atomic script in
Redis does once. The turn's own task chooses the messages that fit (`turns.prompt`), sends them to
the model (`upstream`), encodes the text as frames (`formats`) and appends them to the turn's `log`.
The log's bytes are committed to Redis in batches. Only committed bytes are sent to viewers, whose
connections `api` holds: no request handler drives the generation.
"""
