# Report, Table 2: two models, ResNeSt-101 and SE-ResNeXt-101, mean, 70.12 on the test split. The
# report does not give their sizes; these are the best in Table 1. The command is as in
# ensemble_5_tsharpen.py.
_base_ = ['ensemble_5_tsharpen.py']

members = [_base_.members[0], _base_.members[4]]
model = dict(members=members, policy='mean')
test_dataloader = dict(dataset=dict(pipeline=[dict(type='MemberViews', members=members)]))
