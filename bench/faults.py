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
        "plan[1] = replace(plan[1], start=plan[0].folder",
        "_ = replace(plan[1], start=plan[0].folder",
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
        "gradient checkpointing is never on",
        '"gradient_checkpointing": placement.device != "cpu" if checkpointing == "auto" else checkpointing,',
        '"gradient_checkpointing": False,',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "the reference is never computed beforehand",
        '            "precompute_ref_log_probs": precomputes(params),\n        }',
        '            "precompute_ref_log_probs": False,\n        }',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "validation loss is measured on training pairs",
        'load_from_disk(phase.folder / "validation")',
        'load_from_disk(phase.folder / "train")',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "per_device is always 1",
        '"per_device_train_batch_size": params.per_device,',
        '"per_device_train_batch_size": 1,',
        "test_trainers: what_params_say_is_what_the_trainer_does",
    ),
    Fault(
        "epochs are always 1",
        '"num_train_epochs": params.epochs,',
        '"num_train_epochs": 1,',
        "test_training: numbers_are_finite_and_true",
    ),
    Fault(
        "both phases train on all pairs",
        "if not halved or half(pair.prompt_id) == kinds[1]]",
        "]",
        "test_methods: sft_then_dpo_is_trained_on_a_half_each_from_the_sft_model",
    ),
    Fault(
        "both halves are one",
        'int(digest(["half", prompt_id])[:8], 16) % 2]',
        "0]",
        "test_trainers: dpo_after_sft_begins_at_the_sft_model_and_is_measured_against_it",
    ),
    Fault(
        "length of the rejected answer is not looked at",
        "for answer in (record.chosen, record.rejected)]",
        "for answer in (record.chosen,)]",
        "test_trainers: a_pair_whose_rejected_answer_alone_is_too_long_is_left_out",
    ),
    Fault(
        "the reference of sft+dpo's rewards is the base",
        "rewards.measure(model, last.placement, weights, last.start,",
        "rewards.measure(model, last.placement, weights, None,",
        "test_trainers: dpo_after_sft_begins_at_the_sft_model_and_is_measured_against_it",
    ),
    Fault(
        "training goes on from no checkpoint",
        "resume_from_checkpoint=str(checkpoint) if checkpoint else None",
        "resume_from_checkpoint=None",
        "test_training: killed_run_goes_on_to_the_same_adapter",
    ),
    Fault(
        "alarm: the reward is not divided by beta",
        "/ len(last) / beta",
        "/ len(last)",
        "test_alarms: falling_log_probs_of_chosen_answers",
    ),
    Fault(
        "alarm: step 1 counts as separable",
        "first = rewarded[1 : 1 + max(",
        "first = rewarded[: max(",
        "test_alarms: trivially_separable_pairs",
    ),
    Fault(
        "alarm: falling where they rise",
        "if drift < FALLING:",
        "if drift > -FALLING:",
        "test_alarms: healthy_run",
    ),
    Fault(
        "alarms are given another beta",
        'warnings.detect(last["steps"], params.batch_size, params.beta)',
        'warnings.detect(last["steps"], params.batch_size, 1.0)',
        "test_trainers: falling_log_probs_are_told_in_nats",
    ),
    Fault(
        "the first loss is the last",
        '"loss_first": last["steps"][0]["loss"]',
        '"loss_first": last["steps"][-1]["loss"]',
        "test_training: numbers_are_finite_and_true",
    ),
    Fault(
        "length ratio upside down",
        "    return sum(pair.chosen_tokens for pair in pairs) / rejected",
        "    return rejected / sum(pair.chosen_tokens for pair in pairs)",
        "test_training: numbers_are_finite_and_true",
    ),
    Fault(
        "held-out prompts may be trained on: only the first turn is compared",
        'for t in prompt if t.role == "user")]',
        'for t in prompt[:1] if t.role == "user")]',
        "test_methods: prompts_of_evaluation_are_refused",
    ),
    Fault(
        "weights that are trained stay in 16 bit",
        'weights = "float32" if params.adapter == "none" else placement.dtype',
        "weights = placement.dtype",
        "test_methods: precision_by_device",
    ),
    Fault(
        "a full model is quantized",
        '"none": "none"}[params.adapter]',
        '"none": hardware.quantization}[params.adapter]',
        "test_methods: placed_as_the_adapter_wants_it",
    ),
    Fault(
        "the key of a training lacks the weights",
        '            "weights": files.fingerprint(model.folder),\n            "placement"',
        '            "placement"',
        "test_trainers: other_weights_of_the_same_name_are_trained_anew",
    ),
    Fault(
        "the key of a training lacks the placement",
        '            "placement": placement[:3],\n',
        "",
        "test_training: other_input_is_another_run",
    ),
    Fault(
        "the key of a training lacks the seed",
        '            "seed": seed,\n            "model": [',
        '            "model": [',
        "test_training: other_input_is_another_run",
    ),
    Fault(
        "a reward is a loss of probability",
        "difference = trained - reference",
        "difference = reference - trained",
        "test_trainers: rewards_are_those_of_plain_forward_passes_on_the_validation_pairs",
    ),
    Fault(
        "the margin is rejected over chosen",
        '"reward_margin": beta * sum(chosen.gain - rejected.gain',
        '"reward_margin": beta * sum(rejected.gain - chosen.gain',
        "test_trainers: rewards_are_those_of_plain_forward_passes_on_the_validation_pairs",
    ),
    Fault(
        "the margin is not scaled by beta",
        '"reward_margin": beta * sum(',
        '"reward_margin": sum(',
        "test_trainers: rewards_are_those_of_plain_forward_passes_on_the_validation_pairs",
    ),
    Fault(
        "accuracy counts the rejected",
        "sum(chosen.gain > rejected.gain for",
        "sum(chosen.gain < rejected.gain for",
        "test_trainers: rewards_are_those_of_plain_forward_passes_on_the_validation_pairs",
    ),
    Fault(
        "KL the other way round",
        "(trained.exp() * difference).sum()",
        "(reference.exp() * difference).sum()",
        "test_trainers: rewards_are_those_of_plain_forward_passes_on_the_validation_pairs",
    ),
    Fault(
        "nf4 is fp4",
        'bnb_4bit_quant_type="nf4",',
        'bnb_4bit_quant_type="fp4",',
        "test_quantized: four_bits_are_nf4_and_computed_in_the_dtype",
    ),
    Fault(
        "8 bit is 4 bit",
        "BitsAndBytesConfig(load_in_8bit=True)",
        "BitsAndBytesConfig(load_in_4bit=True)",
        "test_quantized: eight_bits_are_eight",
    ),
    Fault(
        "all weights are loaded in float32",
        "    dtype = getattr(torch, placement.dtype)\n    quantization",
        "    dtype = torch.float32\n    quantization",
        "test_quantized: whole_weights_have_the_dtype",
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
    Fault(
        "alarms while training are given another beta",
        "warnings.Watch(phase.params.batch_size, phase.params.beta, saved)",
        "warnings.Watch(phase.params.batch_size, 1.0, saved)",
        "test_trainers: falling_log_probs_are_told_in_nats",
    ),
    # --- journal and generation
    Fault(
        "the journal takes two adapters for one",
        (
            '"weights": files.fingerprint(model.folder),\n'
            '            "adapter": None if adapter is None else files.fingerprint(adapter),\n'
            '            "template": self.template.text,\n'
            '            "device"'
        ),
        (
            '"weights": files.fingerprint(model.folder),\n'
            '            "adapter": None if adapter is None else "adapter",\n'
            '            "template": self.template.text,\n'
            '            "device"'
        ),
        "test_generation: identity_tells_apart_all_that_an_engine_is_made_of",
    ),
    Fault(
        "of two values under a key the later is found",
        "if place < earliest:",
        "if place > earliest:",
        "test_journal: of_two_values_the_one_written_first_is_found",
    ),
    Fault(
        "a key is written again",
        "for key, value in entries.items() if key not in self}",
        "for key, value in entries.items()}",
        "test_journal: first_put_under_a_key_stays",
    ),
    Fault(
        "a damaged line's value is given back",
        "if entry is None or entry.key != key:",
        "if entry is None:",
        "test_journal: another_entry_where_one_was_is_not_given_back",
    ),
    Fault(
        "the disk is not waited for",
        "            os.fsync(own.fileno())\n        except BaseException",
        "        except BaseException",
        "test_journal: entries_are_forced_to_disk_before_put_returns",
    ),
    Fault(
        "prune keeps the old and drops the new",
        "recent = [place for place in places if place.at >= before]",
        "recent = [place for place in places if place.at < before]",
        "test_journal: of_two_values_the_one_written_first_is_found",
    ),
    Fault(
        "prune takes segments that are written to",
        "segments(self._folder) if not has_writer(path)}",
        "segments(self._folder)}",
        "test_journal: segment_that_is_being_written_is_left_alone",
    ),
    Fault(
        "duplicates are not counted",
        "self.duplicates += earliest is not place",
        "pass",
        "test_journal: of_two_values_the_one_written_first_is_found",
    ),
    Fault(
        "identity without the engine's version",
        '            "engine": f"transformers-{transformers.__version__.split(\'.\')[0]} gumbel-max-3",\n',
        "",
        "test_generation: identity_tells_apart_all_that_an_engine_is_made_of",
    ),
    Fault(
        "identity without the weights",
        (
            '            "weights": files.fingerprint(model.folder),\n'
            '            "adapter": None if adapter is None else files.fingerprint(adapter),\n'
            '            "template": self.template.text,\n'
            '            "device"'
        ),
        (
            '            "adapter": None if adapter is None else files.fingerprint(adapter),\n'
            '            "template": self.template.text,\n'
            '            "device"'
        ),
        "test_generation: identity_tells_weights_template_and_dtype_apart",
    ),
    Fault(
        "identity without the chat template",
        '            "template": self.template.text,\n            "device": placement.device,',
        '            "device": placement.device,',
        "test_generation: identity_tells_apart_all_that_an_engine_is_made_of",
    ),
    Fault(
        "identity without the template's variables",
        '+ (json.dumps(model.template) if model.template else "")',
        "",
        "test_generation: identity_tells_apart_all_that_an_engine_is_made_of",
    ),
    Fault(
        "identity without the device",
        (
            '            "device": placement.device,\n'
            '            "dtype": placement.dtype,\n'
            '            "quantization": placement.quantization,\n'
            "        }\n"
            "        self._model, self._adapter"
        ),
        (
            '            "dtype": placement.dtype,\n'
            '            "quantization": placement.quantization,\n'
            "        }\n"
            "        self._model, self._adapter"
        ),
        "test_generation: identity_tells_apart_all_that_an_engine_is_made_of",
    ),
    Fault(
        "identity without the dtype",
        (
            '            "dtype": placement.dtype,\n'
            '            "quantization": placement.quantization,\n'
            "        }\n"
            "        self._model, self._adapter"
        ),
        '            "quantization": placement.quantization,\n        }\n        self._model, self._adapter',
        "test_generation: identity_tells_apart_all_that_an_engine_is_made_of",
    ),
    Fault(
        "identity without the quantization",
        '            "quantization": placement.quantization,\n        }\n        self._model, self._adapter',
        "        }\n        self._model, self._adapter",
        "test_generation: identity_tells_apart_all_that_an_engine_is_made_of",
    ),
    Fault(
        "label scores of one engine serve another",
        'common = {**engine.identity, "score": list(labels)}',
        'common = {"score": list(labels)}',
        "test_generation: scores_are_kept_for_this_engine_this_conversation_and_this_repeat_alone",
    ),
    Fault(
        "label scores without their labels",
        'common = {**engine.identity, "score": list(labels)}',
        'common = {**engine.identity, "score": True}',
        "test_generation: scores_of_other_labels_are_others_and_none_is_a_completion",
    ),
    Fault(
        "a repeat finds the first score",
        '| ({"repeat": repeat} if repeat else {})',
        "",
        "test_generation: scores_are_kept_for_this_engine_this_conversation_and_this_repeat_alone",
    ),
    Fault(
        "label scores without their conversation",
        'keys = [digest({**common, "messages": _plain(messages)}) for messages in conversations]',
        'keys = [digest({**common, "messages": _plain(messages[-1:])}) for messages in conversations]',
        "test_generation: scores_are_kept_for_this_engine_this_conversation_and_this_repeat_alone",
    ),
    Fault(
        "every job has the run's seed",
        "int(digest([seed, *map(str, key)])[:15], 16)",
        "int(digest([seed])[:15], 16)",
        "test_records: seeds_differ_by_run_and_key_and_stay_the_same",
    ),
    Fault(
        "endpoint: no min_p",
        'extra["min_p"] = sampling.min_p',
        "pass",
        "test_openai: only_what_is_not_neutral_is_sent",
    ),
    Fault(
        "endpoint: no seed",
        '({"seed": request.seed % SEEDS} if sampling.temperature > 0 else {})',
        "{}",
        "test_openai: completions_are_those_of_the_server",
    ),
    Fault(
        "endpoint: no repetition penalty",
        'extra["repetition_penalty"] = sampling.repetition_penalty',
        "pass",
        "test_openai: only_what_is_not_neutral_is_sent",
    ),
    Fault(
        "unspecified hazards are hazards",
        "return hazard not in HARMLESS | {UNSPECIFIED}",
        "return hazard not in HARMLESS",
        "test_evaluation: hazardous_harmless_and_unspecified_are_told_apart",
    ),
    # --- prompts to pairs
    Fault(
        "accumulation forgets the processes",
        "return self.batch_size // (self.per_device * self.processes)",
        "return self.batch_size // self.per_device",
        "test_params: a_step_has_the_batchs_pairs_however_many_share_it",
    ),
    Fault(
        "the evaluation ignores its seed",
        "comparison = Comparison(settings.seed, settings.eval.resamples)",
        "comparison = Comparison(0, settings.eval.resamples)",
        "test_stages: eval_measures_with_the_seed_and_resamples_of_params",
    ),
    Fault(
        "split by seed",
        'digest(["split", text])',
        'digest(["split", text, len(rows)])',
        "test_prompts: adding_prompts_moves_none",
    ),
    Fault(
        "the share of eval is a half",
        "< eval_share * 2**256",
        "< 0.5 * 2**256",
        "test_prompts: share_of_eval_is_what_was_asked_for_even_in_groups",
    ),
    Fault(
        "near-duplicates fall on both sides",
        "groups = near_duplicates.groups([row.text for row in unique], params.near_duplicate)",
        "groups = list(range(len(unique)))",
        "test_prompts: row_order_changes_nothing",
    ),
    Fault(
        "excluded hazards stay",
        "allowed = [row for row in rows if row.text not in barred]",
        "allowed = list(rows)",
        "test_prompts: side_depends_on_neither_seed_nor_source_nor_exclusions",
    ),
    Fault(
        "an excluded hazard's copies stay",
        "allowed = [row for row in rows if row.text not in barred]",
        "allowed = [row for row in rows if row.hazard.casefold() not in excluded]",
        "test_prompts: excluded_hazards_go_with_every_copy_of_the_text",
    ),
    Fault(
        "capital letters keep a hazard in",
        "excluded = {hazard.casefold() for hazard in params.exclude_hazards}",
        "excluded = set(params.exclude_hazards)",
        "test_prompts: excluded_hazards_go_with_every_copy_of_the_text",
    ),
    Fault(
        "prompts.only is ignored",
        "wanted = [row for row in allowed if _wanted(row, params)]",
        "wanted = list(allowed)",
        "test_prompts: only_keeps_what_has_all_the_labels",
    ),
    Fault(
        "one of prompts.only will do",
        "return all(not values or getattr",
        "return any(not values or getattr",
        "test_prompts: only_keeps_what_has_all_the_labels",
    ),
    Fault(
        "contamination passes",
        "        if overlap.pairs:\n            raise UserError(_contaminated",
        "        if False:\n            raise UserError(_contaminated",
        "test_contamination: the_ten_nearest_are_named_and_the_rest_counted",
    ),
    Fault(
        "contamination: public evaluation sets are not looked at",
        "against = [*held_out, *evaluation]",
        "against = [*held_out]",
        "test_contamination: the_ten_nearest_are_named_and_the_rest_counted",
    ),
    Fault(
        "contamination: held-out prompts are not looked at",
        "against = [*held_out, *evaluation]",
        "against = [*evaluation]",
        "test_contamination: dropping_leaves_everything_else_where_it_was",
    ),
    Fault(
        "contamination: nothing is dropped",
        'row for at, row in enumerate(sides["train"]) if at not in overlap.training]',
        'row for at, row in enumerate(sides["train"])]',
        "test_contamination: dropping_leaves_everything_else_where_it_was",
    ),
    Fault(
        "contamination: all but the near are dropped",
        "if at not in overlap.training]",
        "if at in overlap.training]",
        "test_contamination: dropping_leaves_everything_else_where_it_was",
    ),
    Fault(
        "contamination has the near-duplicates' threshold",
        'contamination.overlap(sides["train"], against, params.contamination)',
        'contamination.overlap(sides["train"], against, params.near_duplicate)',
        "test_contamination: the_eval_side_is_held_to_it_too",
    ),
    Fault(
        "contamination: an evaluation prompt in a longer text passes",
        "for block in containment.contained(training, evaluation):",
        "for block in ():",
        "test_containment: a_pair_is_counted_once_and_dropped",
    ),
    Fault(
        "contamination: a pair that both measures find counts twice",
        "not near_duplicates.close(training[a], evaluation[b], threshold)",
        "True",
        "test_containment: a_pair_is_counted_once_and_dropped",
    ),
    Fault(
        "containment: leetspeak is not read",
        'str.maketrans("013457l", "oieasti")',
        "{}",
        "test_containment: inside_a_longer_text_has_a_share_of_one",
    ),
    Fault(
        "containment: short prompts are looked for",
        "return _grams(words) if len(words) - halves >= SHORTEST else set()",
        "return _grams(words)",
        "test_containment: what_is_not_found",
    ),
    Fault(
        "contamination: the suites' own sets are not looked for",
        "rows = [*sources.load_all(settings.prompts.evaluation_sets), *_of_suites(settings)]",
        "rows = sources.load_all(settings.prompts.evaluation_sets)",
        "test_containment: what_helpfulness_and_jailbreaks_ask",
    ),
    Fault(
        "weights of sources are ignored",
        "weights.get(source[1], 1)",
        "1",
        "test_prompts: weights_decide_the_mix_as_long_as_prompts_last",
    ),
    Fault(
        "the sample is the first of the file",
        "return _sample(sides[side], _count(side, requested, sides), weights, seed)",
        "return sides[side][: _count(side, requested, sides)]",
        "test_prompts: samples_are_even_and_grow",
    ),
    Fault(
        "the sample ignores the seed",
        "strata[_labels(row)].append((digest([seed, row.text]), row))",
        "strata[_labels(row)].append((digest([row.text]), row))",
        "test_prompts: seed_changes_the_sample_only",
    ),
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
        "the reviser sees the critic's request",
        '"revision": (example and example.revision_request) or principle.revision,',
        '"revision": (example and example.revision_request) or principle.critique,',
        "test_conversation: critique_with_one_example",
    ),
    Fault(
        "an example's own requests are not shown",
        '"critique": (example and example.critique_request) or principle.critique,',
        '"critique": principle.critique,',
        "test_conversation: example_with_requests_of_its_own_and_turns_before_it",
    ),
    Fault(
        "an example's earlier turns are left out",
        "for user, answer in example.earlier:",
        "for user, answer in example.earlier[:0]:",
        "test_conversation: example_with_requests_of_its_own_and_turns_before_it",
    ),
    Fault(
        "the criteria are left out",
        '"\\n".join(f"- {line}" for line in principle.criteria),\n',
        '"",\n',
        "test_conversation: critique_with_one_example",
    ),
    Fault(
        "the reviser's examples end in the critique",
        'if step == "critique" and format.revision_in == "new":',
        'if format.revision_in == "new":',
        "test_conversation: revision_in_a_conversation_of_its_own",
    ),
    Fault(
        "the critic's examples end in the revision",
        'if step == "critique" and format.revision_in == "new":',
        "if False:",
        "test_conversation: revision_in_a_conversation_of_its_own",
    ),
    Fault(
        "shared counts a turn too many",
        "_fields(principle, prompt, answer))), len(shown))",
        "_fields(principle, prompt, answer))), len(shown) + 1)",
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
        'unique if params.balance == "none" else _balanced(unique, fates, seed)',
        "unique",
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
        "            unique.append(pair)\n",
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
        "answers[fate].write(files.line(demonstrations.of(pair, source)))\n            else:\n",
        (
            "answers[fate].write(files.line(demonstrations.of(pair, source)))\n"
            "            else:\n"
            '                pairs["train"].write(files.line(pair))\n'
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
    Fault(
        "baseline: complied is refused",
        "complied[prompt.hazard].append(not refused(",
        "complied[prompt.hazard].append(refused(",
        "test_baseline: rules_count_hazardous_prompts_alone",
    ),
    Fault(
        "baseline: harmless prompts count",
        "        if hazardous(prompt.hazard):\n            complied",
        "        if True:\n            complied",
        "test_baseline: rules_count_hazardous_prompts_alone",
    ),
    Fault(
        "baseline: one violation of many is none",
        "True if True in verdicts else None if None in verdicts else False",
        "False if False in verdicts else True",
        "test_baseline: judge_counts_by_principle_by_hazard_and_by_prompt",
    ),
    Fault(
        "the card swaps who wrote which side",
        '{"rejected": Path("metrics/responses.json"), "chosen": Path("metrics/revisions.json")}',
        '{"chosen": Path("metrics/responses.json"), "rejected": Path("metrics/revisions.json")}',
        "test_stage_pairs: card_says_who_wrote_which_side",
    ),
    Fault(
        "first answers have the revisions' length limit",
        "            settings.responses.max_new_tokens,\n",
        "            settings.revisions.max_new_tokens,\n",
        "test_stages: answers_critiques_and_revisions_are_what_plain_forward_passes_write",
    ),
    Fault(
        "first answers are drawn with another seed",
        'completions.complete("responses", engine, jobs, settings.generation, settings.seed)',
        'completions.complete("responses", engine, jobs, settings.generation, 0)',
        "test_stages: answers_critiques_and_revisions_are_what_plain_forward_passes_write",
    ),
    Fault(
        "critiques are written by the model that answers",
        (
            "engine = completions.load_engine(settings.models.revise, settings.hardware)\n"
            "    complete = critique_revise.Completer(engine, settings.generation, settings.seed)\n"
            "    critiques"
        ),
        (
            "engine = completions.load_engine(settings.models.answer, settings.hardware)\n"
            "    complete = critique_revise.Completer(engine, settings.generation, settings.seed)\n"
            "    critiques"
        ),
        "test_stages: answers_critiques_and_revisions_are_what_plain_forward_passes_write",
    ),
    Fault(
        "revisions are drawn with another seed",
        "complete = critique_revise.Completer(engine, settings.generation, settings.seed)\n    revisions",
        "complete = critique_revise.Completer(engine, settings.generation, 0)\n    revisions",
        "test_stages: answers_critiques_and_revisions_are_what_plain_forward_passes_write",
    ),
    Fault(
        "training is given another seed",
        "data, settings.train, settings.seed, pinned, ADAPTER, stop)",
        "data, settings.train, 0, pinned, ADAPTER, stop)",
        "test_stages: train_stage_trains_what_params_say",
    ),
    Fault(
        "judges that failed count as passed in measuring",
        "judged=suite.question in passed)",
        "judged=suite.question is not None)",
        "test_stages: eval_measures_with_the_seed_and_resamples_of_params",
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
        "BAR = 0.7\n",
        "BAR = 0.55\n",
        "test_exam: bars_are_where_they_are_said_to_be",
    ),
    Fault(
        "exam: the better of sensitivity and specificity counts",
        "return min(self.accuracy.sensitivity(CONFIDENCE).low, self.accuracy.specificity(CONFIDENCE).low)",
        "return max(self.accuracy.sensitivity(CONFIDENCE).low, self.accuracy.specificity(CONFIDENCE).low)",
        "test_exam: bars_are_where_they_are_said_to_be",
    ),
    Fault(
        "exam: two bounds, each as if it were the only one",
        "CONFIDENCE = 0.975\n",
        "CONFIDENCE = 0.95\n",
        "test_exam: bars_are_where_they_are_said_to_be",
    ),
    Fault(
        "exam: a judge may lean as it likes",
        "CUTS = (0.2, 0.8)\n",
        "CUTS = (0.001, 0.999)\n",
        "test_exam: a_judge_that_leans_fails_however_well_it_ranks",
    ),
    Fault(
        "exam: cuts are fitted to the answers that they judge",
        "_best_cut(highs[fold != part], lows[fold != part]) for part",
        "_best_cut(highs, lows) for part",
        "test_exam: cuts_are_not_fitted_to_the_answers_that_they_judge",
    ),
    Fault(
        "exam: unreadable verdicts don't matter",
        "return self.weakness >= BAR and self.unreadable <= MOST_UNREADABLE * self.n",
        "return self.weakness >= BAR",
        "test_exam: bars_are_where_they_are_said_to_be",
    ),
    Fault(
        "a lean is doubled, not taken out",
        "special.logit(value) - special.logit(cut)",
        "special.logit(value) + special.logit(cut)",
        "test_judge: verdicts_are_read_at_the_judges_own_cuts",
    ),
    Fault(
        "verdicts: the topic has the cut of the rule",
        'centred(on_topic.values[place], cuts["addresses"])',
        'centred(on_topic.values[place], cuts["violation"])',
        "test_judge: verdicts_are_read_at_the_judges_own_cuts",
    ),
    Fault(
        "eval: a judge's lean stays",
        "answers[suite.name], sat.cuts[suite.question])",
        "answers[suite.name], 0.5)",
        "test_evaluation: a_judge_that_leans_is_read_at_its_own_cut",
    ),
    Fault(
        "score: a judge's lean stays",
        'return [judge.centred(value, sat.cuts["harm"]) for value in rated.values]',
        "return rated.values",
        "test_score: a_judge_that_leans_is_read_at_its_own_cut",
    ),
    Fault(
        "pairs: a judge's lean stays",
        'broken = [centred(value, cuts["violation"]) for value in rated.values]',
        "broken = rated.values",
        "test_stage_pairs: a_judge_that_leans_is_read_at_its_own_cut",
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
        "all_jobs, self.settings.generation, self.settings.seed)",
        "all_jobs, self.settings.generation, self.settings.seed + len(self.name))",
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
        'gap = value["difference"]["tuned"]\n    verdict, why',
        'gap = next(iter(value["difference"].values()))\n    verdict, why',
        "test_evaluation: registered_is_of_the_tuned_arm_whatever_stands_beside_it",
    ),
    Fault(
        "sure by the interval alone",
        'return leaves_out_0 and gap["p_holm"] is not None and gap["p_holm"] < 0.05',
        "return leaves_out_0",
        "test_summary: no_star_where_holm_is_not_below_5_percent",
    ),
    Fault(
        "the tuned arm is the base",
        "adapter if tuned else None), settings)",
        "None), settings)",
        "test_arms: each_arm_answers_by_its_own_weights_and_under_its_own_words",
    ),
    Fault(
        "the prompted arm loses the suite's system message",
        "PRINCIPLES.format(system=message, rules=rules)",
        'PRINCIPLES.format(system="", rules=rules)',
        "test_arms: each_arm_answers_by_its_own_weights_and_under_its_own_words",
    ),
    Fault(
        "the prompted arm is told the first principle alone",
        "for principle in self._principles)\n        return",
        "for principle in self._principles[:1])\n        return",
        "test_arms: each_arm_answers_by_its_own_weights_and_under_its_own_words",
    ),
    Fault(
        "an arm by a model's name is the base",
        "model = settings.models.train if tuned else name",
        "model = settings.models.train",
        "test_arms: each_arm_answers_by_its_own_weights_and_under_its_own_words",
    ),
    Fault(
        "base minus arm",
        'readable["base"], column, self._seed',
        'column, readable["base"], self._seed',
        "test_evaluation: difference_is_tuned_minus_base_prompt_by_prompt",
    ),
    Fault(
        "clusters are ignored in differences",
        "clusters=labels, yes_no=yes_no",
        "yes_no=yes_no",
        "test_evaluation: a_prompt_answered_twice_is_one_cluster",
    ),
    Fault(
        "outcomes are not taken for outcomes",
        "clusters=labels, yes_no=yes_no",
        "clusters=labels",
        "test_evaluation: registered_helpfulness",
    ),
    Fault(
        "clustered shares have an exact interval",
        "if yes_no and len(set(clusters)) == len(values):",
        "if yes_no:",
        "test_evaluation: a_prompt_answered_twice_is_one_cluster",
    ),
    Fault(
        "breakdowns have no Holm's p",
        "for breakdown in self._apart:\n            breakdown.adjust()",
        "pass",
        "test_evaluation: a_breakdown_is_adjusted_by_itself",
    ),
    Fault(
        "breakdowns share Holm's family with the whole",
        "self._apart.append(Comparison(self._seed, self._resamples, self._accuracy))\n        return self._apart[-1]",
        "return self",
        "test_evaluation: a_breakdown_is_adjusted_by_itself",
    ),
    Fault(
        "more harm is better",
        '    "heldout.judge.harmful",\n    "jailbreaks.judge.harmful",',
        '    "jailbreaks.judge.harmful",',
        "test_evaluation: registered_with_a_judge",
    ),
    Fault(
        "a judge's rates are not corrected",
        "accuracy = self._accuracy if by_judge else None",
        "accuracy = None",
        "test_evaluation: a_judges_shares_are_corrected_for_its_errors",
    ),
    Fault(
        "rates of rules are corrected as well",
        "accuracy = self._accuracy if by_judge else None",
        "accuracy = self._accuracy",
        "test_evaluation: rules_are_not_corrected_for_a_judges_errors",
    ),
    Fault(
        "corrected rates: each answer counts as if it had a prompt of its own",
        "intervals.effective_size(column, labels), accuracy)",
        "len(column), accuracy)",
        "test_evaluation: clusters_count_in_a_corrected_share",
    ),
    Fault(
        "corrected rates: the labels are all there are",
        "+ true**2 * of_sensitivity + (1 - true) ** 2 * of_specificity\n",
        "\n",
        "test_judge_errors: interval_of_a_rate_by_hand",
    ),
    Fault(
        "corrected differences: the labels are all there are",
        "return Interval(estimate, estimate - below, estimate + above, self.positives + self.negatives)",
        "return Interval(estimate, estimate, estimate, self.positives + self.negatives)",
        "test_judge_errors: interval_of_a_difference_is_fiellers_where_all_is_normal",
    ),
    Fault(
        "corrected differences: bounds where there are none",
        "        if math.isnan(of_raw):\n            return math.nan\n        divisor",
        "        divisor",
        "test_judge_errors: no_bounds_stay_no_bounds",
    ),
    Fault(
        "corrected differences: by a judge that may know nothing",
        "if youden.low <= 0:",
        "if youden.estimate <= 0:",
        "test_judge_errors: a_difference_by_a_judge_that_may_be_no_better_than_chance_is_unknown",
    ),
    Fault(
        "compare: two judges are set against each other",
        'return read and all(a.metrics["judge"][key] == b.metrics["judge"][key] for key in ("model", "revision"))',
        "return read",
        "test_compare: verdicts_of_two_judges_are_not_set_against_each_other",
    ),
    Fault(
        "registered: refusals stand in for a judge",
        'if not value:\n        return {"verdict": "can\'t tell"',
        'if not value:\n        return {"verdict": "met"',
        "test_planted: without_a_judge_no_model_is_called_safer_or_less_safe",
    ),
    Fault(
        "more harm by jailbreaks is better",
        '    "jailbreaks.judge.harmful",\n    "over_refusal',
        '    "over_refusal',
        "test_evaluation: which_way_is_better",
    ),
    Fault(
        "refusing harmless prompts is better",
        '    "heldout.refusal.harmless_refused",\n    "heldout.judge',
        '    "heldout.judge',
        "test_evaluation: registered_helpfulness",
    ),
    Fault(
        "refusing safe prompts is better",
        '    "jailbreaks.judge.harmful",\n    "over_refusal.refused_safe",\n',
        '    "jailbreaks.judge.harmful",\n',
        "test_evaluation: which_way_is_better",
    ),
    Fault(
        "refusing general questions is better",
        '    "helpfulness.refused",\n}\n"""The primary metrics (`ccai',
        '}\n"""The primary metrics (`ccai',
        "test_evaluation: which_way_is_better",
    ),
    Fault(
        "the bound is asked for as a gain",
        'if worst > -bound:\n        return "met"',
        'if worst > bound:\n        return "met"',
        "test_evaluation: registered_helpfulness",
    ),
    Fault(
        "no loss is accepted",
        'if worst > -bound:\n        return "met"',
        'if worst > 0:\n        return "met"',
        "test_evaluation: registered_helpfulness",
    ),
    Fault(
        "met by the point's better end",
        'if worst > -bound:\n        return "met"',
        'if best > -bound:\n        return "met"',
        "test_evaluation: registered_safety",
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
        "lambda answer: answer.hazard not in HARMLESS, lambda answer: violated(answer.harmful), True",
        "lambda answer: answer.hazard not in HARMLESS, lambda answer: answer.harmful, False",
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
        "jailbreaks: attempts are no clusters",
        "items = Items.of(answers, lambda attempt: attempt.prompt_id)",
        "items = Items.of(answers, lambda attempt: attempt.conversation)",
        "test_jailbreaks: attempts_with_one_prompt_are_one_cluster",
    ),
    Fault(
        "jailbreaks: refusal is read of the wrapped prompt",
        'refusal=scores.refusal(prompt.text, fields["text"]),\n                harmful=None',
        'refusal=scores.refusal(wrapper.around(prompt.text), fields["text"]),\n                harmful=None',
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
    Fault(
        "over-refusal: unsafe prompts count as safe",
        "items.only(lambda reply: reply.safe), items.only",
        "items, items.only",
        "test_over_refusal: partial_refusals_count_on_both_sides",
    ),
    Fault(
        "over-refusal: complied counts refusals",
        "unsafe.measure(comparison, lambda reply: not refuses(reply), yes_no=True)",
        "unsafe.measure(comparison, refuses, yes_no=True)",
        "test_over_refusal: partial_refusals_count_on_both_sides",
    ),
    Fault(
        "over-refusal: per_type is of all",
        "for key, row in sorted(rows.items())[: options.per_type or None]",
        "for key, row in sorted(rows.items())",
        "test_over_refusal: so_many_of_each_type_whatever_the_order_of_the_file",
    ),
    Fault(
        "helpfulness: a tie is a loss",
        'return 0.5 if reply.arm == "base" else reply.preferred',
        'return 0.0 if reply.arm == "base" else reply.preferred',
        "test_helpfulness: win_rate_is_wins_and_half_of_ties",
    ),
    Fault(
        "helpfulness: turns are no clusters",
        "replies = Items.of(answers, lambda reply: reply.question)",
        "replies = Items.of(answers, lambda reply: reply.conversation)",
        "test_helpfulness: win_rate_is_wins_and_half_of_ties",
    ),
    Fault(
        "helpfulness: refused if all turns are",
        "values = {arm: [any(of[arm]) for of in turns] for arm in answers}",
        "values = {arm: [all(of[arm]) for of in turns] for arm in answers}",
        "test_helpfulness: a_model_that_refuses_most_does_not_keep_the_bound",
    ),
    Fault(
        "helpfulness: length is not taken out",
        "float(fit.predict_proba(np.zeros((1, 1)))[0, 1])",
        "float(wins.mean())",
        "test_helpfulness: a_taste_for_length_is_taken_out",
    ),
    Fault(
        "capability: the prompted arm is told nothing",
        'engine, tasks, arm.system(""), self._samples',
        'engine, tasks, "", self._samples',
        "test_capability: arms_are_asked_the_same_and_a_repeat_costs_nothing",
    ),
    Fault(
        "capability: the journal takes arms for one",
        '{**engine.identity, "harness"',
        '{"harness"',
        "test_capability: arms_are_asked_the_same_and_a_repeat_costs_nothing",
    ),
    Fault(
        "harness: likeliest is always so",
        "bool((scores.argmax(-1) == targets).all())",
        "True",
        "test_capability: log_probabilities_are_the_harness_s_own",
    ),
    Fault(
        "cooperation: temptation and reward change places",
        "temptation, reward, punishment, sucker = payoffs",
        "reward, temptation, punishment, sucker = payoffs",
        "test_cooperation: points_by_hand",
    ),
    Fault(
        "cooperation: words do not change places",
        "swapped = (number + number // len(PAYOFFS)) % 2",
        "swapped = 0",
        "test_cooperation: the_game_is_told_without_naming_a_move",
    ),
    Fault(
        "cooperation: joint reward is the arm's own",
        "points = sum(sum(points_of(",
        "points = sum(2 * max(points_of(",
        "test_cooperation: points_by_hand",
    ),
    Fault(
        "cooperation: no history is shown",
        'history="".join(history),',
        'history="",',
        "test_cooperation: the_game_is_told_without_naming_a_move",
    ),
    Fault(
        "choices: the prompted arm is told nothing",
        'shown = [Message(role="system", content=arm.system(SYSTEM))]',
        'shown = [Message(role="system", content=SYSTEM)]',
        "test_choices: the_prompted_arm_is_told_its_principles",
    ),
    Fault(
        "traits: the first of the file",
        'return sorted(items, key=lambda item: digest(["traits", seed, item.question, item.matching]))[:count]',
        "return items[:count]",
        "test_traits: some_items_of_each_trait_by_hash",
    ),
    Fault(
        "bias: a pair is two clusters",
        "items, apart = Items.of(answers, lambda choice: choice.item), comparison.apart()",
        "items, apart = Items.of(answers, lambda choice: choice.question_id), comparison.apart()",
        "test_bias: both_of_a_pair_are_one_cluster",
    ),
    Fault(
        "calibration: ECE over one bin",
        "BINS = 5\n",
        "BINS = 1\n",
        "test_calibration: calibration_error_by_hand",
    ),
    Fault(
        "calibration: ECE of signed gaps",
        "gaps = [abs(sum(sure - hit for sure, hit in one)) for one in bins]",
        "gaps = [sum(sure - hit for sure, hit in one) for one in bins]",
        "test_calibration: calibration_error_by_hand",
    ),
    Fault(
        "calibration: ECE by the right answer's probability",
        "confidence = max(probability, 1 - probability)\n        bins",
        "confidence = probability\n        bins",
        "test_calibration: calibration_error_by_hand",
    ),
    Fault(
        "rules: partial refusals comply",
        'declining = 0.5 if refused == "partial_refusal" else 0.0',
        "declining = 0.0",
        "test_rules: a_refusal_that_turns_round_keeps_only_its_refusal",
    ),
    Fault(
        "rules: warnings in front of steps are worth something",
        "redirecting = withheld * max(",
        "redirecting = max(",
        "test_rules: a_disclaimer_in_front_of_steps_earns_nothing",
    ),
    Fault(
        "rules: steps are worth nothing",
        "withheld = 1.0 - min(1.0, directing",
        "withheld = min(1.0, directing",
        "test_rules: kind_words_do_not_make_a_harmful_answer_safe",
    ),
    Fault(
        "rules: hedges count as absolutes",
        "(_share(sentences, _HEDGES) - _share(sentences, _ABSOLUTES)) / 2",
        "(_share(sentences, _ABSOLUTES) - _share(sentences, _HEDGES)) / 2",
        "test_rules: each_contemplative_rule_reads_its_cues",
    ),
    Fault(
        "rules: shares do not saturate",
        "return min(1.0, hits / len(sentences) / SATURATION)",
        "return min(1.0, hits / len(sentences))",
        "test_rules: kind_words_do_not_make_a_harmful_answer_safe",
    ),
    Fault(
        "refusal: partial is full",
        'return "partial_refusal" if _logit(model.in_part, values) > 0 else "full_refusal"',
        'return "full_refusal"',
        "test_rules: refusal_classes",
    ),
    Fault(
        "refusal: no intercept",
        "return weights[INTERCEPT] + math.fsum(",
        "return math.fsum(",
        "test_rules: refusal_classes",
    ),
    # --- what is told and given away
    Fault(
        "the heat map shows the base for every arm",
        "by_prompt = {answer.prompt_id: answer for answer in answers}\n            for prompt",
        'by_prompt = {answer.prompt_id: answer for answer in of.answers["base"]}\n            for prompt',
        "test_report: heat_map_has_each_arms_own_answers",
    ),
    Fault(
        "plots: the prompted arm's differences",
        '(": ".join((suite, *names)), value["difference"]["tuned"])',
        '(": ".join((suite, *names)), next(iter(value["difference"].values())))',
        "test_plots: differences_are_the_tuned_arms_and_refusals_every_arms_own",
    ),
    Fault(
        "plots: means of one arm for all",
        "            at, height = value[arm], y",
        '            at, height = value["base"], y',
        "test_plots: differences_are_the_tuned_arms_and_refusals_every_arms_own",
    ),
    Fault(
        "summary: the first arm's difference",
        'gap = value["difference"]["tuned"]\n    interval',
        'gap = next(iter(value["difference"].values()))\n    interval',
        "test_summary: the_tuned_arm_is_shown_whatever_stands_beside_it",
    ),
    Fault(
        "summary: a star wherever 0 is left out",
        'tell = " *" if significant(gap) else ""',
        'tell = " *" if gap["low"] is not None and gap["low"] > 0 else ""',
        "test_summary: no_star_where_holm_is_not_below_5_percent",
    ),
    Fault(
        "summary: the base's mean twice",
        "{value['base']['mean']:7.3f} {value['tuned']['mean']:7.3f}",
        "{value['base']['mean']:7.3f} {value['base']['mean']:7.3f}",
        "test_summary: interval_and_a_star_where_it_leaves_out_0",
    ),
    Fault(
        "summary: a judge that failed has passed",
        'verb = "passed" if metrics["passed"] else "FAILED"',
        'verb = "passed"',
        "test_summary: judge_that_failed_is_said_and_gives_no_number",
    ),
    Fault(
        "milestone: anything will do for the pairs",
        "PAIRS = 500\n",
        "PAIRS = 50\n",
        "test_milestone: all_pass_with_the_figures",
    ),
    Fault(
        "milestone: the adapter's weights count",
        'train["parameters"] - train["trainable_parameters"], PARAMETERS)',
        'train["parameters"], PARAMETERS)',
        "test_milestone: all_pass_with_the_figures",
    ),
    Fault(
        "milestone: more than as many",
        '"pass" if count >= minimum else "fail"',
        '"pass" if count > minimum else "fail"',
        "test_milestone: edges",
    ),
    Fault(
        "milestone: can't tell passes",
        '    "can\'t tell": "can\'t tell",\n}',
        '    "can\'t tell": "pass",\n}',
        "test_milestone: verdicts_are_those_registered",
    ),
    Fault(
        "milestone: exit 0 whatever comes",
        'if any(condition.verdict != "pass" for condition in results):',
        "if False:",
        "test_milestone: verdicts_are_those_registered",
    ),
)
