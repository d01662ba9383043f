"""A sentiment classifier of MiniLM, fine-tuned on rated snippets of film reviews, and its data."""

import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

RATED: Final = "movieReviewSnippets_GroundTruth.txt"  # number, mean rating of people, snippet
CLEAR, TESTED, CALIBRATED = 0.3, 2000, 600  # rating beyond which a snippet counts; snippets
STEPS, BATCH, RATE = 400, 32, 6e-5
_SAVED: Final = 20  # steps


@dataclass(frozen=True, slots=True)
class Snippets:
    """Snippets and whether they praise: to train, to calibrate (of those to train) and to test."""

    train: list[str]
    labels: list[int]
    test: list[str]
    test_labels: list[int]

    @property
    def calibration(self) -> list[str]:
        """Return some snippets of those to train."""
        return self.train[:CALIBRATED]


def snippets(archive: Path) -> Snippets:
    """Return the rated snippets in the source archive of vaderSentiment 0.5."""
    rows = [line.split("\t") for line in _found(archive.read_bytes(), archive.name).splitlines()]
    clear = [(row[2].strip(), float(row[1])) for row in rows if abs(float(row[1])) >= CLEAR]
    order = np.random.default_rng(0).permutation(len(clear))
    texts = [clear[at][0] for at in order]
    labels = [int(clear[at][1] > 0) for at in order]
    return Snippets(texts[TESTED:], labels[TESTED:], texts[:TESTED], labels[:TESTED])


def _found(content: bytes, name: str) -> str:
    """Return the text of the rated snippets in an archive of archives, "" where it is absent."""
    if name.endswith(RATED):
        return content.decode("latin1")
    if name.endswith((".tar.gz", ".tgz")):
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            files = ((m.name, tar.extractfile(m)) for m in tar.getmembers() if m.isfile())
            return next(filter(None, (_found(f.read(), name) for name, f in files if f)), "")
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = (each for each in archive.namelist() if not each.endswith("/"))
            return next(filter(None, (_found(archive.read(each), each) for each in names)), "")
    return ""


def classifier(given: Path, data: Snippets, folder: Path) -> None:
    """Fine-tune the encoder in a folder, and save it to another; goes on where it was ended."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(given)
    model = AutoModelForSequenceClassification.from_pretrained(
        given, num_labels=2, attn_implementation="eager"
    )
    model.bert.embeddings.requires_grad_(False)
    tuned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(tuned.values(), lr=RATE, weight_decay=0.01)
    state_file, state, begun = folder.with_suffix(".unfinished"), {}, 0
    if state_file.exists():
        state = load_file(state_file)
        begun = int(state["step"])
        model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
        for name, parameter in tuned.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            optimizer.state[parameter] = {key: state[f"{key}.{name}"] for key in keys}
    model.train()
    batches = _batches(data.train)
    for step in range(begun, STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 40, (STEPS - step) / (STEPS - 40))
        torch.manual_seed(step)  # dropout as in the unbroken training
        rows = batches[step % len(batches)]
        fed = tokenizer([data.train[at] for at in rows], padding=True, return_tensors="pt")
        loss = model(**fed, labels=torch.tensor([data.labels[at] for at in rows])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % _SAVED == 0:
            print(f"  fine-tune: step {step + 1} of {STEPS}, loss {float(loss):.3f}", flush=True)
            state = {f"model.{name}": value for name, value in model.state_dict().items()}
            for name, parameter in tuned.items():
                kept: dict[str, Any] = optimizer.state[parameter]
                state |= {f"{key}.{name}": value for key, value in kept.items()}
            state["step"] = torch.tensor(step + 1)
            whole = {name: value.detach().clone() for name, value in state.items()}
            save_file(whole, state_file.with_suffix(".new"))
            state_file.with_suffix(".new").replace(state_file)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "trained.json").write_text(json.dumps({"steps": STEPS, "batch": BATCH}))


def _batches(texts: list[str]) -> list[list[int]]:
    """Return rows of two epochs, about equally long texts in a batch."""
    rng, batches = np.random.default_rng(1), []
    for _ in range(2):
        order = rng.permutation(len(texts))
        for start in range(0, len(order), BATCH * 32):
            part = sorted(order[start : start + BATCH * 32], key=lambda at: len(texts[at]))
            groups = [part[k : k + BATCH] for k in range(0, len(part) - BATCH + 1, BATCH)]
            batches += [[int(at) for at in groups[k]] for k in rng.permutation(len(groups))]
    return batches
