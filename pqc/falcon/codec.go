package falcon

// compress writes s2 as Falcon spec 3.11.2 says to the begin of dst, pads the byte that was begun with zero bits and returns the
// number of bytes. It returns 0 if dst is too short or a coefficient is outside [-2047, 2047].
func compress(dst []byte, s2 []int16) int { return 0 }

// NewPrivateKey reads a private key.
func NewPrivateKey(d Degree, b []byte) (*PrivateKey, error) { return nil, ErrPrivateKey }

// newPrivateKey expands the four polynomials, which it keeps, and computes the public key.
func newPrivateKey(d Degree, f, g, F, G []int8) (*PrivateKey, error) { return nil, ErrPrivateKey }
