"""Keras callbacks that send a run's metrics to MLflow or to Weights & Biases."""


def to_mlflow(experiment: str):
    import mlflow
    from mlflow.keras import MlflowCallback

    mlflow.set_experiment(experiment)
    mlflow.start_run()
    return MlflowCallback()


def to_wandb(project: str):
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    wandb.init(project=project)
    return WandbMetricsLogger()
