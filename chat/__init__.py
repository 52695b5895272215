"""One turn, from question to answer.

The way of the data: `routes` takes a question and asks `turns` to begin it, which one atomic script in
Redis does once. A task of its own then picks the history that fits (`context`), asks the model
(`upstream`), encodes what comes as `frames` and appends them to the turn's `log`. The log's bytes go to
Redis in groups, and only what Redis has goes on to the viewers, whose connections `routes` holds: no
handler ever drives the model.
"""
