# Report, Section 4.2: "The t-sharpening and weighted ensemble was used as our ensemble policy",
# read as one policy, with the five models of ensemble_5_tsharpen.py. Table 2 has the two as
# separate rows, and no accuracy for both at once. The weights are fitted on the validation split,
# for this policy. ensemble_5_weighted.py has the commands for the files that they are fitted to:
#   python tools/ensemble.py *_test.pkl --policy weighted_tsharpen --fit *_val.pkl \
#       --save-weights work_dirs/weights_tsharpen.json
_base_ = ['ensemble_5_weighted.py']

model = dict(policy='weighted_tsharpen', weights='work_dirs/weights_tsharpen.json')
