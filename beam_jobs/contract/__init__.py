"""What the Beam jobs and the trainer agree on: all that both import, and nothing else.

- Config: `config`, `sections`, `validation`, `named_files`, `times`. The trainer's keys, such as
  `learning_rate`, are here too: one YAML file drives every stage, and each stage checks the whole
  of it within a second, before any work.
- Dataset: `manifest`, `records`, `tfrecord`.
- Text: `analyzer`, `word_lists`, `english`.
- Model directory: `saved_model`.
- Command-line kit: `command_line`, `progress`, `quiet`, `errors`, `user_code`, `atomic`.

Only `analyzer` imports TensorFlow when it is itself imported, and nothing here imports Beam.
"""
