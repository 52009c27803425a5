package race

import (
	"slices"
	"testing"
)

// A test does all of something, or the first part of it; never more than there is.
func TestFirst(t *testing.T) {
	all := []int{1, 2, 3}
	want := map[int][]int{0: all, 2: all, 3: all, 4: all}
	if Enabled {
		want[0], want[2] = nil, all[:2]
	}
	for few, some := range want {
		if got := First(all, few); !slices.Equal(got, some) || Times(len(all), few) != len(some) {
			t.Errorf("of %d %v, %d times; want %v", few, got, Times(len(all), few), some)
		}
	}
}
