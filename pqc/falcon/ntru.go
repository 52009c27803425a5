package falcon

// The NTRU equation (Falcon spec 3.8.2, algorithm 6): find F and G with fG - gF = q modulo x^n + 1. Field norms carry it over
// to half the degree, again and again, until it is one of integers; and the solution is carried back and made
// shorter at each degree. At depth d, polynomials have n/2^d coefficients.
//
// Which solution is found does not depend on how those of smaller degree were made shorter: two solutions differ by a multiple of
// (f, g), and the last reduction leaves one of them. But whether one is found does, see reduce.go.

// lengths are those of the coefficients at each depth: small and large the most words of 31 bits that the reference
// implementation has for those of f and g, and for those of F and G before they are reduced; mean and deviation those of
// the longest coefficient of f and g, in bits, as measured for it at degree 1024. TestLengths measures them again. Numbers
// that are longer make the solver fail, and other f and g are tried.
var lengths = [11]struct{ small, large, mean, deviation int }{
	{1, 2, 4, 0}, {1, 2, 11, 1}, {2, 5, 24, 1}, {2, 7, 50, 1}, {4, 12, 102, 1}, {7, 21, 202, 2}, {14, 40, 401, 4},
	{27, 78, 794, 5}, {53, 157, 1577, 8}, {106, 308, 3138, 13}, {209, 209, 6308, 25},
}

// leastBits and mostBits are the bounds between which the longest coefficient of f and g is expected.
func leastBits(depth int) int { return lengths[depth].mean - 6*lengths[depth].deviation }
func mostBits(depth int) int  { return lengths[depth].mean + 6*lengths[depth].deviation }

// More bits than those of f and g: of F and G when they are reduced, and at the bottom, where they are multiplied by q. At
// degrees below 512 the coefficients at depth 0 are longer by three bits.
const moreReduced, moreBottom, moreSmall = 10, 14, 3

// wordsFor is the number of words, and of primes, for numbers of so many bits and a sign.
func wordsFor(bits int) int { return (bits + 63) / 63 }

func smallWords(depth int) int { return wordsFor(mostBits(depth) + moreSmall) }

// solver has the memory of one key generation.
type solver struct {
	logn int
	// small[d] has the coefficients of f, and after them those of g, at depth d, of smallWords(d) words each.
	small [11][]uint64
	// large has those of F, and then those of G, at one depth, stride words from one to the next; before those at the next depth.
	large, before []uint64
	stride        int
	residues      [4][]uint64
	product       []uint64 // for rebuild
	scratch       []uint64 // for bezout
	ring          ring
	reducer
}

func newSolver(logn uint) *solver {
	s := &solver{logn: int(logn)}
	n := 1 << logn
	var most, mostLarge int
	for depth := range s.logn + 1 {
		words := smallWords(depth)
		s.small[depth] = make([]uint64, 2*words*s.size(depth))
		most = max(most, words, wordsFor(s.largeBits(depth)))
		mostLarge = max(mostLarge, 2*s.size(depth)*wordsFor(s.largeBits(depth)))
	}
	s.large, s.before = make([]uint64, mostLarge), make([]uint64, mostLarge)
	for i := range s.residues {
		s.residues[i] = make([]uint64, n)
	}
	s.product = make([]uint64, most)
	s.scratch = make([]uint64, bezoutScratch(wordsFor(s.reducedBits(s.logn))))
	s.ring.roots = make([]uint64, n)
	s.allocateReducer()
	return s
}

// wipe overwrites what could tell of the key.
func (s *solver) wipe() {
	for _, x := range s.small {
		clear(x)
	}
	for _, x := range s.residues {
		clear(x)
	}
	clear(s.large)
	clear(s.before)
	clear(s.scratch)
	s.reducer.wipe()
}

// size is the number of coefficients at a depth.
func (s *solver) size(depth int) int { return 1 << (s.logn - depth) }

// reducedBits is the length of F and G at a depth after they were reduced; those at the bottom are what they are.
func (s *solver) reducedBits(depth int) int {
	if depth == s.logn {
		return mostBits(depth) + moreBottom
	}
	return mostBits(depth) + moreReduced
}

// largeBits is the length of F and G at a depth before they are reduced: sums of half as many products as there are
// coefficients, half of them negative.
func (s *solver) largeBits(depth int) int {
	if depth == s.logn {
		return s.reducedBits(depth)
	}
	return s.reducedBits(depth+1) + mostBits(depth) + (s.logn-depth)/2
}

// solve sets F and G so that fG - gF = q, and reports whether it could: whether f and g have such, with coefficients in
// [-127, 127].
func (s *solver) solve(F, G, f, g []int8) bool {
	n := len(f)
	for i := range f {
		s.small[0][i], s.small[0][n+i] = uint64(int64(f[i])), uint64(int64(g[i]))
	}
	for depth := range s.logn {
		s.fieldNorms(depth)
	}
	if !s.solveBottom() {
		return false
	}
	for depth := s.logn - 1; depth >= 0; depth-- {
		s.lift(depth)
		if !s.reduce(depth) {
			return false
		}
	}
	return s.result(F, G, f, g)
}

// fieldNorms computes f and g at depth+1: the even coefficients of f(x)·f(-x), and the same of g.
func (s *solver) fieldNorms(depth int) {
	n := s.size(depth)
	words, nextWords := smallWords(depth), smallWords(depth+1)
	m := &s.ring
	m.roots = m.roots[:n]
	t := s.residues[0][:n]
	for j := range nextWords {
		m.set(&primes[j])
		power, scale := m.power(words+1), m.montgomery(m.inverseOf(n/2))
		for of := range 2 { // f and g
			m.reduceAll(t, s.small[depth][of*n*words:], words, words, power)
			m.transform(t)
			half := t[:n/2]
			for i := range half {
				half[i] = m.mul(t[2*i], t[2*i+1])
			}
			m.transformBack(half, scale)
			into := s.small[depth+1][of*n/2*nextWords:]
			for i, x := range half {
				into[i*nextWords+j] = x
			}
		}
	}
	rebuild(s.small[depth+1], nextWords, s.product)
}

// reduceAll sets t to numbers in two's complement modulo p, of words words each, stride words from one to the next.
func (m *field) reduceAll(t, x []uint64, words, stride int, power uint64) {
	for i := range t {
		t[i] = m.reduceSigned(x[i*stride:][:words], power)
	}
}

// solveBottom solves the equation at the bottom, where f and g are integers: resultants, which are odd and positive.
func (s *solver) solveBottom() bool {
	small, words := smallWords(s.logn), wordsFor(s.reducedBits(s.logn))
	s.stride = words
	F, G := s.large[:words], s.large[words:2*words]
	x, y := s.before[:words], s.before[words:2*words]
	clear(s.before[:2*words])
	copy(x, s.small[s.logn][:small])
	copy(y, s.small[s.logn][small:])
	// The equation is f·u - g·v = 1 times q.
	if !bezout(G, F, x, y, s.scratch) {
		return false
	}
	mulSmall(F, q)
	mulSmall(G, q)
	return true
}

// lift computes F and G at a depth from those at depth+1: F(x) = F(x^2)·g(-x) and G(x) = G(x^2)·f(-x).
func (s *solver) lift(depth int) {
	n := s.size(depth)
	words, stride := smallWords(depth), wordsFor(s.largeBits(depth))
	beforeWords := s.reducedBits(depth+1)/64 + 1
	s.large, s.before = s.before, s.large
	f, g := s.residues[0][:n], s.residues[1][:n]
	F, G := s.residues[2][:n], s.residues[3][:n]
	for j := range stride {
		m := &s.ring
		if j < len(s.rings) {
			m = &s.rings[j]
		}
		m.roots = m.roots[:n]
		m.set(&primes[j])
		power := m.power(words + 1)
		m.reduceAll(f, s.small[depth], words, words, power)
		m.reduceAll(g, s.small[depth][n*words:], words, words, power)
		m.transform(f)
		m.transform(g)
		power = m.power(beforeWords + 1)
		m.reduceAll(F[:n/2], s.before, beforeWords, s.stride, power)
		m.reduceAll(G[:n/2], s.before[n/2*s.stride:], beforeWords, s.stride, power)
		m.transform(F[:n/2])
		m.transform(G[:n/2])
		for i := n/2 - 1; i >= 0; i-- {
			a, b := F[i], G[i]
			F[2*i], F[2*i+1] = m.mul(a, g[2*i+1]), m.mul(a, g[2*i])
			G[2*i], G[2*i+1] = m.mul(b, f[2*i+1]), m.mul(b, f[2*i])
		}
		scale := m.montgomery(m.inverseOf(n))
		m.transformBack(F, scale)
		m.transformBack(G, scale)
		for i := range n {
			s.large[i*stride+j], s.large[(n+i)*stride+j] = F[i], G[i]
		}
		s.keep(depth, j, f, g)
	}
	rebuild(s.large[:2*n*stride], stride, s.product)
	s.stride = stride
}

// result writes F and G and checks the equation modulo a prime that is greater than any coefficient of it.
func (s *solver) result(F, G, f, g []int8) bool {
	n := len(f)
	m := &s.rings[0] // of depth 0
	var t [4][]uint64
	wrong := uint64(0)
	for i, x := range [4][]int8{f, g, F, G} {
		t[i] = s.residues[i][:n]
		for j := range x {
			if i >= 2 {
				word := s.large[((i-2)*n+j)*s.stride]
				x[j] = int8(word)
				wrong |= (word + 127) &^ 0xFF // 255 would be 128
				wrong |= nonzero(word^128) ^ 1
			}
			t[i][j] = m.reduceInt(int64(x[j]))
		}
		m.transform(t[i])
	}
	return m.differByQ(t[0], t[1], t[2], t[3]) && wrong == 0
}

// differByQ reports whether fG - gF = q; all four are transformed.
func (r *ring) differByQ(f, g, F, G []uint64) bool {
	wrong := uint64(0)
	for i := range f {
		// q transformed is q everywhere.
		wrong |= r.montgomery(r.sub(r.mul(f[i], G[i]), r.mul(g[i], F[i]))) ^ q
	}
	return wrong == 0
}
