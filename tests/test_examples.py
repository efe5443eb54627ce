"""The README's programs and the examples do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def run(*command: str, typed: str = "", **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        input=typed,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def block(start: str) -> str:
    """The README's Python block that contains this text."""
    (found,) = [text for text in BLOCKS if start in text]
    return found


def test_the_readmes_first_lines_give_a_true_answer(smollm2: Path) -> None:
    shown = run("-c", block("Tell me about rivers"))
    assert "The capital of Germany is Berlin." in shown
    assert len(shown.split()) > 20


def test_the_readmes_person_takes_the_models_place(smollm2: Path) -> None:
    program = block("add_event_callback")
    assert program in (ROOT / "examples/intercept.py").read_text()
    shown = run("-c", program, typed="Bonn, I think.\n")
    assert "The model says: The capital of Germany is Berlin." in shown
    assert "instruction: Name the capital of Germany." in shown
    assert "You said: Bonn, I think." in shown


def test_the_readmes_terminal_and_handlers_work(smollm2: Path) -> None:
    begin = "from byzerllm import ByzerLLM\nllm = ByzerLLM.local()\nquestion = 'Capital?'\n"
    run("-c", begin + block("HumanModel(surface="), typed="Berlin\n")
    shown = run(
        "-c",
        begin
        + block("keep_secrets")
        + "config = {'temperature': 0}\n"
        + "print(llm.chat_oai('Name the capital of Germany.', llm_config=config)[0].output)\n"
        + "try:\n    llm.chat_oai('my password')\nexcept Exception as error:\n    print(error)\n",
    )
    assert "Berlin" in shown
    assert "no passwords, please" in shown


def test_the_readmes_own_file_is_deployed(smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").symlink_to(smollm2)
    begin = f"import os; os.chdir({str(tmp_path)!r})\nfrom byzerllm import ByzerLLM\n"
    program = begin + "llm = ByzerLLM()\n" + block('"model.gguf"')
    ask = "llm.chat_oai('What is 2+2?', model='mine', llm_config={'temperature': 0})[0].output"
    shown = run("-c", f"{program}print({ask})")
    assert "4" in shown


def test_the_readmes_scripted_model_answers() -> None:
    run("-c", block("ScriptedModel"))


def test_the_demo_gives_true_answers(smollm2: Path) -> None:
    shown = run(str(ROOT / "examples" / "demo.py"))
    assert "model  The capital of Germany is Berlin." in shown
    assert "Paris" in shown
    assert re.search(r"\([1-9]\d* tokens, [1-9]\d* tokens/s", shown)
    assert "examples/intercept.py" in shown


def test_the_watching_example_refuses_and_answers(smollm2: Path) -> None:
    shown = run(str(ROOT / "examples" / "watch.py"))
    assert "Berlin" in shown
    assert "refused: no passwords, please" in shown


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_every_example_is_tested(name: str) -> None:
    assert name in Path(__file__).read_text() or name == "hosted.py"
