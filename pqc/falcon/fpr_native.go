//go:build !falcon_emulated

package falcon

import "math"

// fpr is a floating-point number of IEEE 754 binary64, rounded to nearest, ties to even, at every operation: each product
// is converted to float64, so that no compiler fuses it with a sum. The build tag falcon_emulated puts soft in its place,
// which gives the same bits.
type fpr float64

func fprOf(i int64) fpr      { return fpr(i) }
func fprConst(x float64) fpr { return fpr(x) }
func (x fpr) add(y fpr) fpr  { return x + y }
func (x fpr) sub(y fpr) fpr  { return x - y }
func (x fpr) neg() fpr       { return -x }
func (x fpr) half() fpr      { return fpr(float64(x * 0.5)) }
func (x fpr) mul(y fpr) fpr  { return fpr(float64(x * y)) }
func (x fpr) div(y fpr) fpr  { return x / y }
func (x fpr) sqrt() fpr      { return fpr(math.Sqrt(float64(x))) }
func (x fpr) lt(y fpr) bool  { return x < y }
func (x fpr) rint() int64    { return int64(math.RoundToEven(float64(x))) } // |x| < 2^63, as for the next two
func (x fpr) floor() int64   { return int64(math.Floor(float64(x))) }
func (x fpr) trunc() int64   { return int64(x) }
