//go:build falcon_emulated

package falcon

import "math"

// fpr is a floating-point number that no floating-point instruction touches.
type fpr = soft

func fprOf(i int64) fpr      { return softOf(i) }
func fprConst(x float64) fpr { return soft(math.Float64bits(x)) }
