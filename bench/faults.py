"""The faults that bench.mutants plants: what somebody could break without meaning to, in lines that decide something.

`text` stands in one place of ccai/ and stages/ (wherever the module lies); `replacement` takes its place. `tests` are
those that have to notice: file stems, each with words for pytest's -k or without, with `;` between them.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A fault in plain English, where it goes, and who has to notice."""

    name: str
    text: str
    replacement: str
    tests: str


FAULTS: tuple[Fault, ...] = (
    # --- training
    Fault(
        "DPO's beta is always 0.1",
        '            "beta": params.beta,\n            "loss_type"',
        '            "beta": 0.1,\n            "loss_type"',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "lora_alpha is always 16",
        "lora_alpha=params.lora_alpha",
        "lora_alpha=16",
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "the learning rate is always the same",
        '"learning_rate": params.learning_rate,',
        '"learning_rate": 5e-3,',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "sft+dpo starts DPO from the base",
        "found[1] = replace(found[1], start=found[0].folder",
        "_ = replace(found[1], start=found[0].folder",
        "test_trainers: dpo_after_sft_begins_at_the_sft_model_and_is_measured_against_it",
    ),
    Fault(
        "rewards are measured on training pairs",
        "last.start, fitting.validation, params.beta)",
        "last.start, fitting.pairs, params.beta)",
        "test_trainers: rewards_are_those_of_plain_forward_passes_on_the_validation_pairs",
    ),
    Fault(
        "SFT takes DPO's learning rate",
        '"learning_rate": params.sft.learning_rate',
        '"learning_rate": params.learning_rate',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "SFT takes DPO's epochs",
        '"num_train_epochs": params.sft.epochs}',
        '"num_train_epochs": params.epochs}',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "KTO's beta is always 0.1",
        'settings |= {"beta": params.beta, "precompute',
        'settings |= {"beta": 0.1, "precompute',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "KTO counts an answer as a pair",
        '        settings["per_device_train_batch_size"] *= 2  # a pair is two examples\n',
        "",
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "KTO's labels are swapped",
        '"label": side == "chosen"}',
        '"label": side == "rejected"}',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "no warmup",
        '"warmup_steps": params.warmup_ratio,',
        '"warmup_steps": 0,',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "the scheduler is always linear",
        '"constant_with_warmup" if params.scheduler == "constant" else params.scheduler,',
        '"linear",',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "any nll_coefficient weighs 1",
        '({"sft": params.nll_coefficient} if',
        '({"sft": 1.0} if',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "nll_coefficient is ignored",
        '| ({"sft": params.nll_coefficient} if params.nll_coefficient else {})',
        "",
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "APO-down is APO-zero",
        '"apo-down": "apo_down"',
        '"apo-down": "apo_zero"',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "DPO by length is plain DPO",
        '"dpo-norm": "sigmoid_norm"',
        '"dpo-norm": "sigmoid"',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "IPO is DPO",
        '"ipo": "ipo"',
        '"ipo": "sigmoid"',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "gradients are not accumulated",
        '"gradient_accumulation_steps": params.accumulation,',
        '"gradient_accumulation_steps": 1,',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "training's seed is always 42",
        '"seed": _seed(phase.seed),\n        "data_seed"',
        '"seed": 42,\n        "data_seed"',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "the order of the data is always the same",
        '"data_seed": _seed(phase.seed),',
        '"data_seed": 42,',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "lora_r is always 16",
        "LoraConfig(r=params.lora_r,",
        "LoraConfig(r=16,",
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "LoRA on attention alone",
        'target_modules="all-linear"',
        'target_modules=["q_proj", "v_proj"]',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "max_length never reaches TRL",
        '"max_length": params.max_length,',
        '"max_length": 1024,',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "only the chosen answer's length is tried",
        "for turns in ([*pair.prompt, pair.chosen[-1]], [*pair.prompt, pair.rejected[-1]])",
        "for turns in ([*pair.prompt, pair.chosen[-1]],)",
        "test_tokens: over_length_is_what_training_counts",
    ),
    Fault(
        "lengths are without the prompt",
        "for turns in ([*pair.prompt, pair.chosen[-1]], [*pair.prompt, pair.rejected[-1]])",
        "for turns in ([pair.chosen[-1]], [pair.rejected[-1]])",
        "test_tokens: over_length_is_what_training_counts",
    ),
    # --- journal and generation
    Fault(
        "the journal takes two adapters for one",
        (
            '"weights": modelfiles.fingerprint(model.folder),\n'
            '            "adapter": None if adapter is None else modelfiles.fingerprint(adapter),\n'
            '            "template": self.template.text,\n'
            '            "device"'
        ),
        (
            '"weights": modelfiles.fingerprint(model.folder),\n'
            '            "adapter": None if adapter is None else "adapter",\n'
            '            "template": self.template.text,\n'
            '            "device"'
        ),
        "test_generation: identity_tells_apart_all_that_an_engine_is_made_of",
    ),
    Fault(
        "of two values under a key the later is found",
        "if place < known:",
        "if place > known:",
        "test_journal: of_two_values_the_one_written_first_is_found",
    ),
    Fault(
        "a key is written again",
        "for key, value in entries.items() if key not in self}",
        "for key, value in entries.items()}",
        "test_journal: first_put_under_a_key_stays",
    ),
    Fault(
        "the disk is not waited for",
        "            os.fsync(own.fileno())\n        except BaseException",
        "        except BaseException",
        "test_journal: entries_are_forced_to_disk_before_put_returns",
    ),
    Fault(
        "prune keeps the old and drops the new",
        "kept = [place for place in places if place.at >= before]",
        "kept = [place for place in places if place.at < before]",
        "test_journal: of_two_values_the_one_written_first_is_found",
    ),
    Fault(
        "duplicates are not counted",
        "self.duplicates += known is not place",
        "pass",
        "test_journal: of_two_values_the_one_written_first_is_found",
    ),
    Fault(
        "unspecified hazards are hazards",
        "return hazard not in HARMLESS | {UNSPECIFIED}",
        "return hazard not in HARMLESS",
        "test_evaluation: hazardous_harmless_and_unspecified_are_told_apart",
    ),
    # --- prompts to pairs
    Fault(
        "a critique's parent is its prompt",
        "                parent=answer.sha256,\n",
        "                parent=answer.prompt_id,\n",
        "test_rounds: one_round_asks_what_it_always_asked",
    ),
    Fault(
        "a revision's parent is the answer",
        "            parent=critique.sha256,\n            **fields,\n        )\n        for critique, fields",
        "            parent=critique.parent,\n            **fields,\n        )\n        for critique, fields",
        "test_rounds: one_round_asks_what_it_always_asked",
    ),
    Fault(
        "each round criticises the first answer",
        "answers = _revise(method, by_sha256, critiques, revision_tokens, complete, note)",
        "_revise(method, by_sha256, critiques, revision_tokens, complete, note)",
        "test_rounds: each_round_takes_up_the_revision_of_the_one_before",
    ),
    Fault(
        "the principle is drawn once for all rounds",
        'digest(["principle", seed, answer.prompt_id, _next_round(answer), principle.slug])',
        'digest(["principle", seed, answer.prompt_id, principle.slug])',
        "test_rounds: random_principles_are_drawn_evenly_for_each_prompt_and_round",
    ),
    Fault(
        "the principle is drawn once for all prompts",
        'digest(["principle", seed, answer.prompt_id, _next_round(answer), principle.slug])',
        'digest(["principle", seed, _next_round(answer), principle.slug])',
        "test_rounds: random_principles_are_drawn_evenly_for_each_prompt_and_round",
    ),
    Fault(
        "the principle is drawn without the seed",
        'digest(["principle", seed, answer.prompt_id, _next_round(answer), principle.slug])',
        'digest(["principle", answer.prompt_id, _next_round(answer), principle.slug])',
        "test_rounds: random_principles_are_drawn_evenly_for_each_prompt_and_round",
    ),
    Fault(
        "critiques have the length of revisions",
        "method.critique_job(answer, principle, params.max_new_tokens)",
        "method.critique_job(answer, principle, revision_tokens)",
        "test_rounds: one_round_asks_what_it_always_asked",
    ),
    Fault(
        "critiques of one round share a seed",
        'key = ("critique", answer.prompt_id, principle.slug, str(_next_round(answer)))',
        'key = ("critique", answer.prompt_id, str(_next_round(answer)))',
        "test_rounds: one_round_asks_what_it_always_asked",
    ),
    Fault(
        "the reviser is shown no critique",
        "answer.text, critique.text)\n        return Job(key, turns, max_new_tokens)",
        'answer.text, "-")\n        return Job(key, turns, max_new_tokens)',
        "test_rounds: one_round_asks_what_it_always_asked",
    ),
    Fault(
        "no worked example is shown",
        "for example in principle.examples[:examples]:",
        "for example in principle.examples[:0]:",
        "test_conversation: critique_with_one_example",
    ),
    Fault(
        "all worked examples are shown",
        "for example in principle.examples[:examples]:",
        "for example in principle.examples:",
        "test_conversation: critique_with_one_example",
    ),
    Fault(
        "no system message for answers",
        'messages = [Message(role="system", content=system)] if system else []\n    return Turns(',
        "messages = list[Message]()\n    return Turns(",
        "test_conversation: answer",
    ),
    Fault(
        "no system message for critiques",
        'messages = [Message(role="system", content=system)] if system else []\n    for example',
        "messages = list[Message]()\n    for example",
        "test_conversation: critique_with_one_example",
    ),
    Fault(
        "chosen and rejected change places",
        (
            'chosen=[Message(role="assistant", content=revision.text)],\n'
            '            rejected=[Message(role="assistant", content=response.text)],'
        ),
        (
            'chosen=[Message(role="assistant", content=response.text)],\n'
            '            rejected=[Message(role="assistant", content=revision.text)],'
        ),
        "test_pairs: good_pairs_are_kept_with_where_they_came_from",
    ),
    Fault(
        "tokens of chosen and rejected change places",
        "chosen_tokens=revision.completion_tokens,\n            rejected_tokens=response.completion_tokens,",
        "chosen_tokens=response.completion_tokens,\n            rejected_tokens=revision.completion_tokens,",
        "test_pairs: models_and_tokens_are_those_of_their_sides",
    ),
    Fault(
        "the pair's prompt lacks the system message",
        "prompt=list(to_answer(system, prompt.text).messages),",
        'prompt=list(to_answer("", prompt.text).messages),',
        "test_pairs: good_pairs_are_kept_with_where_they_came_from",
    ),
    Fault(
        "cut first answers pass",
        'if response.finish_reason == "length":\n            yield',
        "if False:\n            yield",
        "test_pairs: cut_first_answer_takes_all_its_revisions",
    ),
    Fault(
        "cut revisions pass",
        '"chosen" if revision.finish_reason == "length" else None)',
        "None)",
        "test_pairs: first_gate_that_applies_is_recorded",
    ),
    Fault(
        "validation is split by pair",
        'fates[pair.at] = "validation" if pair.prompt_id in held_out else "train"',
        'fates[pair.at] = "validation" if pair.prompt_id in held_out and pair.at % 2 else "train"',
        "test_pairs: no_prompt_is_on_both_sides_and_all_its_pairs_are_together",
    ),
    Fault(
        "the validation share is a tenth",
        "math.ceil(len(ranked) * share)",
        "math.ceil(len(ranked) * 0.1)",
        "test_pairs: no_prompt_is_on_both_sides_and_all_its_pairs_are_together",
    ),
    Fault(
        "validation is split without the seed",
        'digest(["validation", seed, prompt_id])',
        'digest(["validation", prompt_id])',
        "test_pairs: split_is_by_seed",
    ),
    Fault(
        "nothing is balanced",
        'kept if params.balance == "none" else _balanced(kept, fates, seed)',
        "kept",
        "test_pairs: balance_leaves_all_the_same_number_whatever_the_order",
    ),
    Fault(
        "hazards are balanced by principle",
        'pair.hazard if balance == "hazard" else pair.principle',
        "pair.principle",
        "test_pairs: balance_leaves_all_the_same_number_whatever_the_order",
    ),
    Fault(
        "balance leaves the most",
        "fewest = min(map(len, groups.values()), default=0)",
        "fewest = max(map(len, groups.values()), default=0)",
        "test_pairs: balance_leaves_all_the_same_number_whatever_the_order",
    ),
    Fault(
        "duplicates stay",
        '            fates[pair.at] = "duplicate"\n',
        "            kept.append(pair)\n",
        "test_pairs: same_words_by_two_principles_count_once_but_not_for_two_prompts",
    ),
    Fault(
        "the same words to two prompts are duplicates",
        "int(digest([pair.prompt_id, *texts])[:16], 16)",
        "int(digest([*texts])[:16], 16)",
        "test_pairs: same_words_by_two_principles_count_once_but_not_for_two_prompts",
    ),
    Fault(
        "over-length pairs pass",
        '            reasons[at] = "over_length"\n',
        "            pass\n",
        "test_pairs: pairs_too_long_for_training_are_dropped",
    ),
    Fault(
        "verdicts shut no gate",
        "reasons[at] = gates.by_verdict(verdict, params.require_violation)",
        "pass",
        "test_pairs: gates_of_the_judge",
    ),
    Fault(
        "a dropped pair goes to train",
        "answers[fate].write(records.line(demonstrations.of(pair, source)))\n            else:\n",
        (
            "answers[fate].write(records.line(demonstrations.of(pair, source)))\n"
            "            else:\n"
            '                pairs["train"].write(records.line(pair))\n'
        ),
        "test_pairs: files_hold_each_pair_once_and_the_chosen_answers_to_imitate",
    ),
    Fault(
        "the rejected answer is imitated",
        "messages=[*pair.prompt, *pair.chosen],",
        "messages=[*pair.prompt, *pair.rejected],",
        "test_pairs: files_hold_each_pair_once_and_the_chosen_answers_to_imitate",
    ),
    Fault(
        "SFT: train and validation are one file",
        "answers[fate].write(",
        'answers["train"].write(',
        "test_pairs: files_hold_each_pair_once_and_the_chosen_answers_to_imitate",
    ),
    Fault(
        "the pairs' length ratio upside down",
        '"length_ratio": self.chosen_tokens / self.rejected_tokens if',
        '"length_ratio": self.rejected_tokens / self.chosen_tokens if',
        "test_pairs: counts_by_hand",
    ),
    Fault(
        "gate: min_words",
        "if len(new) < params.min_words:",
        "if len(new) < 2:",
        "test_gates: gate",
    ),
    Fault(
        "gate: an echo passes",
        "if echo(new, words(prompt)) >= MOST_ECHOED:",
        "if False:",
        "test_gates: gate",
    ),
    Fault(
        "gate: echo at any share",
        "MOST_ECHOED = 0.8",
        "MOST_ECHOED = 0.3",
        "test_gates: gate",
    ),
    Fault(
        "gate: repetition from one in ten",
        "MOST_REPEATED = 0.5",
        "MOST_REPEATED = 0.1",
        "test_gates: gate",
    ),
    Fault(
        "gate: copies pass",
        "if copied(new, shown) - copied(words(prompt), shown) - copied(old, shown):",
        "if False:",
        "test_gates: what_every_revision_is_shown_is_not_to_be_copied",
    ),
    Fault(
        "gate: the prompt's own words count as copied",
        "copied(new, shown) - copied(words(prompt), shown) - copied(old, shown)",
        "copied(new, shown) - copied(old, shown)",
        "test_gates: words_of_the_prompt_or_the_answer_are_no_copy",
    ),
    Fault(
        "gate: identical comes after near-identical",
        (
            "    if new == old:\n"
            '        return "identical"\n'
            "    if similarity(new, old) >= params.max_similarity:\n"
            '        return "near_identical"\n'
        ),
        (
            "    if similarity(new, old) >= params.max_similarity:\n"
            '        return "near_identical"\n'
            "    if new == old:\n"
            '        return "identical"\n'
        ),
        "test_gates: gate",
    ),
    Fault(
        "gate: max_similarity is not reached",
        "similarity(new, old) >= params.max_similarity",
        "similarity(new, old) > params.max_similarity",
        "test_gates: thresholds_are_where_they_are_said_to_be",
    ),
    Fault(
        "gate: max_length_ratio is of letters",
        "len(new) > len(old) * params.max_length_ratio",
        "len(chosen) > len(rejected) * params.max_length_ratio",
        "test_gates: thresholds_are_where_they_are_said_to_be",
    ),
    Fault(
        "gate: the cut side's name",
        'return f"{cut}_truncated"',
        'return "chosen_truncated"',
        "test_gates: truncated_sides",
    ),
    Fault(
        "gate: a language of the prompt's is a change",
        "new not in (old, language(prompt))",
        "new not in (old,)",
        "test_gates: no_gate",
    ),
    Fault(
        "gate: a language is believed at once",
        "SURE = 0.95\n",
        "SURE = 0.3\n",
        "test_gates: few_words_have_no_sure_language",
    ),
    Fault(
        "gate: turns may begin with the assistant",
        "return None if len(turns) % 2 and turns ==",
        "return None if turns ==",
        "test_gates: turns",
    ),
    # --- judge
    Fault(
        "judge: readable in one order will do",
        "readable = min(a + b, c + d) >= READABLE",
        "readable = max(a + b, c + d) >= READABLE",
        "test_judge: unreadable_in_either_order_is_none",
    ),
    Fault(
        "judge: anything is readable",
        "READABLE = 0.5\n",
        "READABLE = 0.01\n",
        "test_judge: unreadable_in_either_order_is_none",
    ),
    Fault(
        "judge: harm is asked of other arms' prompts",
        "[HARM] * len(flat), [*prompts] * len(answers), texts)",
        "[HARM] * len(flat), [*reversed(prompts)] * len(answers), texts)",
        "test_judge: each_arms_answers_are_judged_with_their_own_prompts",
    ),
    Fault(
        "judge: flips are not counted",
        "_agreed(both) == 0.5 for both in probabilities)",
        "False for both in probabilities)",
        "test_judge: helpfulness_shows_both_conversations_whole_and_needs_both_orders",
    ),
    Fault(
        "exam: chance is enough",
        "BAR = 0.8\n",
        "BAR = 0.55\n",
        "test_exam: bars_are_where_they_are_said_to_be",
    ),
    Fault(
        "exam: only the harm question",
        "asked = [name for name in QUESTIONS if name in questions and",
        "asked = [name for name in list(QUESTIONS)[:1] if name in questions and",
        "test_exam: eval_asks_what_its_suites_need",
    ),
    Fault(
        "guard: not renormalised",
        "return sum(probabilities[len(self.safe) :]) / sum(probabilities)",
        "return sum(probabilities[len(self.safe) :])",
        "test_guards: verdict_is_read_behind_the_opening",
    ),
    # --- arms, suites and statistics
    Fault(
        "the prompted arm is told no principle",
        '"prompted": principles}',
        '"prompted": ()}',
        "test_arms: each_arm_answers_by_its_own_weights_and_under_its_own_words",
    ),
    Fault(
        "arms draw with different seeds",
        "wanted, self.settings.generation, self.settings.seed)",
        "wanted, self.settings.generation, self.settings.seed + len(self.name))",
        "test_arms: each_arm_answers_by_its_own_weights_and_under_its_own_words",
    ),
    Fault(
        "Holm's p is given to the first of three arms alone",
        "self._tested += differences.values()",
        "self._tested += list(differences.values())[:1]",
        "test_evaluation: every_arm_has_its_share_of_holm",
    ),
    Fault(
        "registered: the first arm's difference, not tuned's",
        'gap = value["difference"]["tuned"]\n        figures',
        'gap = next(iter(value["difference"].values()))\n        figures',
        "test_evaluation: registered_is_of_the_tuned_arm_whatever_stands_beside_it",
    ),
    Fault(
        "sure by the interval alone",
        'return leaves_out_0 and gap["p_holm"] is not None and gap["p_holm"] < 0.05',
        "return leaves_out_0",
        "test_summary: no_star_where_holm_is_not_below_5_percent",
    ),
    Fault(
        "violated at any probability",
        "VIOLATION = 0.5\n",
        "VIOLATION = 0.05\n",
        "test_evaluation: registered_with_a_judge",
    ),
    Fault(
        "heldout: harmless prompts count as hazardous",
        "return hazardous(answer.hazard)\n",
        "return True\n",
        "test_evaluation: hazardous_harmless_and_unspecified_are_told_apart",
    ),
    Fault(
        "heldout: refused is complied",
        "return refused(answer.refusal)\n",
        "return not refused(answer.refusal)\n",
        "test_evaluation: hazardous_harmless_and_unspecified_are_told_apart",
    ),
    Fault(
        "heldout: length is of the prompt",
        "lambda answer: answer.completion_tokens, False)",
        "lambda answer: answer.prompt_tokens, False)",
        "test_evaluation: lengths_are_reported",
    ),
    Fault(
        "heldout: the judge's verdict is not thresholded",
        "lambda answer: violated(answer.harmful), True)",
        "lambda answer: answer.harmful, False)",
        "test_evaluation: registered_with_a_judge",
    ),
    Fault(
        "heldout: clusters are answers, not prompts",
        "items, apart = Items.of(answers, lambda answer: answer.prompt_id), comparison.apart()\n        measured",
        "items, apart = Items.of(answers, lambda answer: str(id(answer))), comparison.apart()\n        measured",
        "test_evaluation: a_prompt_answered_twice_is_one_cluster",
    ),
    Fault(
        "heldout: failed judges have numbers",
        'if judged or family != "judge":',
        "if True:",
        "test_evaluation: registered_with_a_judge",
    ),
    Fault(
        "heldout: another length limit than the first answers",
        "                self._asked.max_new_tokens,\n            )\n            for prompt in self.prompts",
        "                2 * self._asked.max_new_tokens,\n            )\n            for prompt in self.prompts",
        "test_pipeline: answers_of_both_arms_are_what_plain_forward_passes_write",
    ),
    Fault(
        "jailbreaks: attempts are no clusters",
        "items = Items.of(answers, lambda attempt: attempt.prompt_id)",
        "items = Items.of(answers, lambda attempt: attempt.conversation)",
        "test_jailbreaks: attempts_with_one_prompt_are_one_cluster",
    ),
    Fault(
        "jailbreaks: refusal is read of the wrapped prompt",
        'refusal=rules.refusal(prompt.text, fields["text"]),\n                harmful=None',
        'refusal=rules.refusal(wrapper.around(prompt.text), fields["text"]),\n                harmful=None',
        "test_jailbreaks: ask",
    ),
    Fault(
        "jailbreaks: seeds without the system message",
        '("jailbreak", wrapper.name, prompt.prompt_id, system),',
        '("jailbreak", wrapper.name, prompt.prompt_id),',
        "test_arms: arms_are_asked_the_same_with_the_same_seeds",
    ),
    Fault(
        "over-refusal: safe and unsafe change places",
        "safe=not row.hazard.startswith(UNSAFE),",
        "safe=row.hazard.startswith(UNSAFE),",
        "test_over_refusal: ask",
    ),
    # --- what is told and given away
    Fault(
        "the heat map shows the base for every arm",
        "by_prompt = {answer.prompt_id: answer for answer in answers}\n            for prompt",
        'by_prompt = {answer.prompt_id: answer for answer in of.answers["base"]}\n            for prompt',
        "test_report: heat_map_has_each_arms_own_answers",
    ),
)
