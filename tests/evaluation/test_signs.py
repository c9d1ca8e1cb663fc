"""Which attacks note signs of trouble: the first and last of each row, whatever other rows ask of the same model."""

from __future__ import annotations

import torch
from torch import nn

from bascule.attacks.contract import Evasion
from bascule.attacks.fgsm import Fgsm
from bascule.attacks.pgd import Pgd
from bascule.core.images import Images
from bascule.evaluation.question import EvaluationSettings, Question
from bascule.evaluation.run import answer_questions, questions_of
from bascule.evaluation.subject import Subject

FIRST, LAST = {"random", "no_gradient"}, {"unconverged", "black_box"}


def asked(*attack: Evasion) -> tuple[Question, ...]:
    return questions_of(EvaluationSettings(test="noise", attack=attack))


def test_each_row_has_the_signs_of_its_own_attacks() -> None:
    weak, strong, other = Fgsm(eps=0.01), Pgd(eps=0.02, steps=2), Pgd(eps=0.01, steps=3)
    questions = {question.key: question for question in (*asked(weak, strong), *asked(other))}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    pixels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    labels = model(pixels / 255).argmax(1)
    images = Images(pixels=pixels, labels=labels, ids=torch.arange(40), classes=("a", "b", "c"))
    subject = Subject(model=model, test=images, seed=0, questions=tuple(questions.values()))
    signs = {
        (question.component, name)
        for question, answer in answer_questions(subject, subject.questions)
        if question.kind == "attack"
        for name in answer.notes["signs"]
    }
    for attack, noted, silent in ((weak, FIRST, LAST), (strong, {"unconverged"}, FIRST), (other, FIRST | LAST, set())):
        names = {name for part, name in signs if part == attack}
        assert noted <= names
        assert not names & silent
