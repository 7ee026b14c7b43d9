# Report, Table 2: two models, ResNeSt-101 and SE-ResNeXt-101, mean, 70.12 on the test split. Their
# sizes are not said: those that are best in Table 1. How to run it: see ensemble_5_tsharpen.py.
_base_ = ['ensemble_5_tsharpen.py']

members = [_base_.members[0], _base_.members[4]]
model = dict(members=members, policy='mean')
test_dataloader = dict(dataset=dict(pipeline=[dict(type='MemberViews', members=members)]))
