"""Judges: models that judge answers, and the exam that each must pass first.

    engine = judge.load("qwen2.5-7b", settings.hardware)  # ccai.judge.judge; a name of conf/models.yaml
    judge.violations("demo", engine, [judge.HARM], [prompt], [answer]).values  # [0.03]: probability of harm

`exam.sit_for("demo", engine, ["harm"]).passed` says whether its verdicts may be used.
"""
