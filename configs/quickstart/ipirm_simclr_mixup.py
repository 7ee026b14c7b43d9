# Stage I at a laptop's scale, our recipe with MixUp: one more pass per step than ipirm_simclr.py
# once the partition is found. Temperature 0.2 is that of Wang et al.'s commands with MixUp.
_base_ = ['ipirm_simclr.py']

model = dict(type='IPIRMSimCLRMixUp', head=dict(type='IPIRMMixUpHead', temperature=0.2))
