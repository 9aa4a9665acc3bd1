"""The cluster that TF_CONFIG, Vertex AI, Slurm or Kubernetes describes, and what is refused."""

import json

import pytest

from beam_jobs.contract.errors import UserError
from trainer.distribution.cluster import Cluster, find_cluster

WORKERS = {"worker": ["a:1", "b:2"]}
SLURM = {
    "SLURM_JOB_ID": "1251",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[2,10]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}
KUBERNETES = {
    "HOSTNAME": "multihot-1",
    "JOB_COMPLETION_INDEX": "1",
    "MULTIHOT_WORKERS": "3",
    "MULTIHOT_SERVICE": "multihot",
}


def tf_config(cluster, task) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


@pytest.mark.parametrize(
    ("cluster", "task", "addresses", "index"),
    [
        (WORKERS, {"type": "worker", "index": 1}, ("a:1", "b:2"), 1),
        (WORKERS, {"type": "worker", "index": "1"}, ("a:1", "b:2"), 1),
        ({"worker": ["a:1"], "chief": ["c:9"]}, {"type": "worker", "index": 0}, ("c:9", "a:1"), 1),
        ({"worker": ["a:1"], "chief": ["c:9"]}, {"type": "chief", "index": 0}, ("c:9", "a:1"), 0),
        ({"worker": ["a:1"]}, {"type": "worker", "index": 0}, ("a:1",), 0),
        ({"worker": ["[::1]:5"]}, {"type": "worker", "index": 0}, ("[::1]:5",), 0),
    ],
)
def test_tf_config_numbers_the_chief_first_and_then_the_workers(cluster, task, addresses, index):
    assert find_cluster(tf_config(cluster, task)) == Cluster(addresses, index, "TF_CONFIG")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": "{}"},
        {"TF_CONFIG": '{"environment": "cloud"}'},
        {"SLURM_JOB_ID": "7"},
        SLURM | {"SLURM_STEP_NUM_TASKS": "1"},
        {"JOB_COMPLETION_INDEX": "1", "HOSTNAME": "folds-1"},  # a Job of runs of their own
        KUBERNETES | {"MULTIHOT_WORKERS": "1"},
    ],
)
def test_without_a_cluster_there_is_none(environment):
    assert find_cluster(environment) is None


def test_vertex_worker_pools_are_chief_and_workers():
    spec = {
        "cluster": {"workerpool0": ["p0-0:2222"], "workerpool1": ["p1-0:2222", "p1-1:2222"]},
        "environment": "cloud",
        "task": {"type": "workerpool1", "index": 1, "trial": "1"},
    }
    assert find_cluster({"CLUSTER_SPEC": json.dumps(spec)}) == Cluster(
        ("p0-0:2222", "p1-0:2222", "p1-1:2222"), 2, "CLUSTER_SPEC"
    )


def test_slurm_ranks_follow_the_order_of_slurms_own_list_of_nodes():
    # TensorFlow's resolver would sort node10 before node2.
    assert find_cluster(SLURM) == Cluster(
        ("node2:12016", "node2:12017", "node10:12016"), 2, "Slurm"
    )


def test_pods_of_an_indexed_job_and_of_a_job_set_find_each_other_by_their_host_names():
    assert find_cluster(KUBERNETES) == Cluster(
        ("multihot-0.multihot:2222", "multihot-1.multihot:2222", "multihot-2.multihot:2222"),
        1,
        "Kubernetes",
    )
    of_set = {"HOSTNAME": "set-workers-0-2", "JOB_COMPLETION_INDEX": "2", "MULTIHOT_SERVICE": "set"}
    found = find_cluster(KUBERNETES | of_set)
    assert (found.index, found.addresses[1]) == (2, "set-workers-0-1.set:2222")


def test_the_first_of_two_descriptions_that_agree_is_taken():
    workers = {"worker": ["a:1", "b:1", "c:1"]}
    environment = tf_config(workers, {"type": "worker", "index": 2}) | SLURM
    assert find_cluster(environment).origin == "TF_CONFIG"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TF_CONFIG": "{cluster"}, "TF_CONFIG: received '{cluster', which is not JSON ("),
        ({"TF_CONFIG": "[1]"}, "TF_CONFIG: received [1], expected a JSON object; for example {"),
        (
            {"TF_CONFIG": json.dumps({"cluster": WORKERS})},
            "received no `task`, expected a mapping as `task`",
        ),
        (
            {"TF_CONFIG": json.dumps({"task": {"type": "worker", "index": 0}})},
            "received no `cluster`, expected a mapping as `cluster`",
        ),
        (
            {"TF_CONFIG": json.dumps({"cluster": [1], "task": {}})},
            "received [1] as `cluster`, expected a mapping",
        ),
        (
            tf_config(WORKERS, {"type": "worker", "index": 2}),
            "received the task index 2, expected 0 to 1, as there are 2 of type 'worker'",
        ),
        (
            tf_config(WORKERS, {"type": "worker", "index": -1}),
            "received the task index -1, expected 0 to 1",
        ),
        (
            tf_config(WORKERS, {"type": "worker", "index": True}),
            "received the task index True, expected 0 to 1",
        ),
        (tf_config(WORKERS, {"type": "worker"}), "received the task index None, expected 0 to 1"),
        (
            tf_config(WORKERS, {"type": "master", "index": 0}),
            "received the task type 'master', expected one of the cluster's: ['worker']",
        ),
        (
            tf_config(WORKERS, {"index": 0}),
            "received the task type None, expected one of the cluster's",
        ),
        (
            tf_config(WORKERS | {"ps": ["c:3"]}, {"type": "ps", "index": 0}),
            "received the task types ['ps', 'worker'], expected only chief and worker",
        ),
        (
            tf_config({"worker": ["a:1", "b"]}, {"type": "worker", "index": 0}),
            "received the address 'b' of 'worker', expected `host:port`",
        ),
        (
            tf_config({"worker": ["a:70000"]}, {"type": "worker", "index": 0}),
            "received the address 'a:70000' of 'worker', expected `host:port`",
        ),
        (
            tf_config({"worker": "a:1"}, {"type": "worker", "index": 0}),
            "received 'a:1' as the addresses of 'worker', expected a list",
        ),
        (
            tf_config({"worker": ["a:1", "a:1"]}, {"type": "worker", "index": 0}),
            "received the addresses a:1, a:1, expected a different one",
        ),
        (
            tf_config({"chief": ["a:1", "b:1"]}, {"type": "chief", "index": 0}),
            "received 2 chiefs, expected one",
        ),
        (
            {
                "CLUSTER_SPEC": json.dumps(
                    {
                        "cluster": {"workerpool2": ["a:1"]},
                        "task": {"type": "workerpool2", "index": 0},
                    }
                )
            },
            "expected only chief and",
        ),
        (SLURM | {"SLURM_PROCID": "3"}, "Slurm: received SLURM_PROCID='3', "),
        (
            {k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"},
            "SLURM_STEP_NODELIST=None",
        ),
        (
            SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2"},
            "expected what `srun` sets in each task of a step",
        ),
        (
            SLURM | {"SLURM_STEP_NUM_TASKS": "many"},
            "Slurm: received SLURM_STEP_NUM_TASKS='many', expected a number",
        ),
        (
            tf_config(WORKERS, {"type": "worker", "index": 0}) | SLURM,
            "received worker 0 of 2 by TF_CONFIG, and worker 2 of 3 by Slurm; expected one "
            "description",
        ),
        (
            KUBERNETES | {"MULTIHOT_WORKERS": "two"},
            "Kubernetes: received MULTIHOT_WORKERS='two', ",
        ),
        (
            KUBERNETES | {"JOB_COMPLETION_INDEX": ""},
            "expected JOB_COMPLETION_INDEX, which pods of a Job have with completionMode: Indexed",
        ),
        (KUBERNETES | {"MULTIHOT_WORKERS": "2", "JOB_COMPLETION_INDEX": "2"}, "an index below"),
        (KUBERNETES | {"MULTIHOT_SERVICE": ""}, "expected MULTIHOT_SERVICE, the headless Service"),
        (KUBERNETES | {"HOSTNAME": "node7"}, "expected a HOSTNAME that ends with the index"),
    ],
)
def test_wrong_cluster_is_told_with_what_was_received_and_expected(environment, expected):
    with pytest.raises(UserError) as raised:
        find_cluster(environment)
    assert expected in str(raised.value)
