"""The training run: step, loop, optimizers, schedules, callbacks."""
