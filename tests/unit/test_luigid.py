"""Tests the scheduler of stack/luigid.py without a network."""

import time

from stack import luigid


def test_a_batch_that_runs_again_belongs_to_the_worker_that_runs_it(tmp_path, monkeypatch):
    """Fails with Luigi's own scheduler: it hands the batch out again while the batch runs."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    state, history = str(tmp_path / "state.pickle"), {"record_task_history": False}
    ours = luigid.Scheduler(state_path=state, retry_delay=5, prune_on_get_work=True, **history)

    def ask(worker, running):
        """Asks for work as a worker does, starts the batch that is handed out, and tells whether there is one."""
        given = ours.get_work(worker=worker, host="here", current_tasks=running)
        started = {"task_id": "both", "family": "Silver", "params": {"date": "1,2"}, "status": "RUNNING"}
        if "batch_id" in given:
            ours.add_task(worker=worker, batch_id=given["batch_id"], **started)
        return "batch_id" in given

    for worker in ("first", "second"):
        ours.add_task_batcher(worker=worker, task_family="Silver", batched_args=["date"], max_batch_size=9)
        for day in ("1", "2"):
            told = {"family": "Silver", "params": {"date": day}, "batchable": True}
            ours.add_task(worker=worker, task_id=day, **told)
        assert ask(worker, [])
        for _ in range(20):  # for more than a minute, after which luigid removes silent workers
            now += 4
            assert not ask(worker, ["both"])
        assert {task["status"] for task in ours.task_list("RUNNING", "").values()} == {"RUNNING"}
        ours.add_task(worker=worker, task_id="both", status="DONE")
        assert {name: task["status"] for name, task in ours.task_list("DONE", "").items()}.keys() == {"1", "2", "both"}
        now += 12


def test_a_task_that_is_to_be_tried_once_is_tried_once_whatever_it_reports(tmp_path):
    """Fails with Luigi's own scheduler: a task that has set a tracking URL is tried three times."""
    ours = luigid.Scheduler(state_path=str(tmp_path / "state.pickle"), retry_count=3, record_task_history=False)
    task = {"worker": "first", "task_id": "conversion"}
    ours.add_task(**task, family="Conversion", params={}, retry_policy_dict={"retry_count": 1})
    assert ours.get_work(worker="first", host="here", current_tasks=[])["task_id"] == "conversion"
    ours.add_task(**task, status="RUNNING", tracking_url="http://127.0.0.1:18080")
    ours.add_task(**task, status="FAILED", expl='"a file lacks a column"', retry_policy_dict={"retry_count": 1})
    assert {*ours.task_list("DISABLED", "")} == {"conversion"}
