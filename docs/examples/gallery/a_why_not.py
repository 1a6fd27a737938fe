"""
Why a 7 rather than a 3?
========================

A picture with two digits, and a network that is torn between them. A heatmap of one class shows what speaks for it; a
contrast also shows what speaks against it, and for whom.
"""

from trained import SEVEN_AND_THREE, classifier

import contrex

seen = classifier()
contrex.why(SEVEN_AND_THREE, seen, target="7")

# %%
# Against the 3: red speaks for the 7, blue for the 3. It costs the same one forward pass.
contrex.why(SEVEN_AND_THREE, seen, target="7", contrast="3")

# %%
# Against all others, each with the weight that it has as a rival. As a 3 is the only one, this is nearly the same
# picture.
contrex.why(SEVEN_AND_THREE, seen, target="7", contrast="weighted")

# %%
# In words, and as numbers.
rather = contrex.why(SEVEN_AND_THREE, seen, target="7", contrast="3")
print(rather)
print(rather.heatmap.shape, rather.heatmap.min(), rather.heatmap.max())
