# Report, Table 2 and Section 4.1: the five models of ensemble_5_weighted.py, weighted, trained on
# train and val for the submission. There are no labeled images left to fit weights on. So these
# are the weights of ensemble_5_weighted.py, fitted on val with the members that were trained on
# train alone: the file names its members, and final_NAME takes the weight of NAME. That a weight
# suits a member trained on twice the images too is an assumption; the report leaves open how it
# chose its weights, and which of its results are of members trained on both.
#   python tools/test.py configs/final/ensemble_final.py --out work_dirs/final_test.pkl
#   python tools/ensemble.py work_dirs/final_test.pkl --submission submission.csv
_base_ = ['../ensemble/ensemble_5_weighted.py']

members = [
    dict(
        config=f'ipirm_mm::final/{name}.py',
        checkpoint=f'work_dirs/{name}/epoch_100.pth',
        crops='ten',
        policy='tsharpen',
    )
    for name in (
        'final_kl_resnest101_330',
        'final_kl_resnest101_448',
        'final_kl_resnest200_320',
        'final_kl_resnest200_400',
        'final_kl_seresnext101_330',
    )
]
model = dict(members=members)
test_dataloader = dict(dataset=dict(pipeline=[dict(type='MemberViews', members=members)]))
