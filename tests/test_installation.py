"""What is missing costs one line, and what is enough is enough."""

import pytest


def test_own_text_needs_no_optional_package(shell, tiny, without):
    without("torchvision", "tiktoken", "matplotlib", "mlxtend", "PIL")
    code, _, err = shell("train.py", *tiny)
    assert code == 0 and "warning: could not draw curves.png" in err and "matplotlib" in err
    assert shell("sample.py", "tiny")[0] == 0


def test_gpt2s_tokenizer_without_tiktoken_is_one_line(shell, tiny, without):
    without("tiktoken", "tiktoken_ext")
    code, _, err = shell("train.py", *tiny, "--data.tokenizer", "gpt2")
    assert code in (1, 2) and err.count("\n") == 1 and "pip install tiktoken" in err


@pytest.mark.data
def test_mnist_without_torchvision_is_one_line(shell, workplace, without):
    (workplace / "d.toml").write_text('[model]\nkind = "mlp"\n[data]\npath = "mnist"\n[train]\nsteps = 1\n')
    without("torchvision")
    code, _, err = shell("train.py", "d.toml")
    assert code == 1 and err.count("\n") == 1 and "pip install torchvision" in err


def test_shapes_are_checked_while_the_tests_run():
    import torch
    from jaxtyping import TypeCheckError

    from model.attention import attention_pattern

    with pytest.raises(TypeCheckError):
        attention_pattern(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5))
