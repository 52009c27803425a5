package combine_test

import (
	"testing"

	"pqlab/suites/combine"
	"pqlab/suites/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

func TestCombine(t *testing.T) { testlab.Run(t, "combine", combine.Specs) }
