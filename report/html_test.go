package report

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestSamples writes every sample where a person can look at it.
func TestSamples(t *testing.T) {
	t.Parallel()
	dir := samplesDir()
	if dir == "" {
		dir = t.TempDir()
	}
	for name, r := range extreme() {
		if err := r.WriteDir(filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
