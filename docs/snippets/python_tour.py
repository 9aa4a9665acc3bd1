"""From a DataFrame to a model: `python python_tour.py`, or cell by cell in a notebook."""

import pandas as pd

import multihot

tickets = pd.read_csv("tickets.csv")
tickets["tags"] = tickets["tags"].fillna("").str.split(";").map(lambda tags: [t for t in tags if t])

dataset = multihot.preprocess(
    tickets,
    text=["title", "body"],
    labels="tags",
    output_dir="tour",
    splits={"method": "stratified", "train": 0.7, "validation": 0.15, "test": 0.15},
)
print(dataset.splits, dataset.label_names)

run = multihot.train(dataset)  # or train(dataset, model={"name": "bow"}, train={"epochs": 5})
print(run.best["validation_micro_f1"])

evaluation = run.evaluate()  # in a notebook, its table is shown
print(pd.DataFrame(dict(evaluation.per_label))[["name", "positives", "f1", "threshold"]])

model = run.export()
print(model.predict(["I was charged twice"]))
tickets["predicted"] = model.predict(tickets)  # by the columns that it was trained on
print(model.best(["I was charged twice"], k=2))
print(model.explain("I was charged twice").labels[0].label)
