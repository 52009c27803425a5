package baseline_test

import (
	"testing"

	"pqlab/suites/baseline"
	"pqlab/suites/testlab"
)

func TestMain(m *testing.M)     { testlab.Main(m) }
func TestBaseline(t *testing.T) { testlab.Run(t, "baseline", baseline.Specs) }
