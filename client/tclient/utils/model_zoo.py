"""torch.utils.model_zoo: the old name of what torch.hub fetches."""

from tclient.hub import load_state_dict_from_url

load_url = load_state_dict_from_url
