package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIMDSIdentityUsesVersion2(t *testing.T) {
	answer := testNode
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			w.Header().Set("x-aws-ec2-metadata-token-ttl-seconds", "60")
			_, _ = fmt.Fprint(w, "token")
		case r.Header.Get("x-aws-ec2-metadata-token") != "token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/latest/meta-data/instance-id":
			_, _ = fmt.Fprintln(w, answer)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer srv.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", srv.URL)
	node, err := IMDSIdentity()(context.Background())
	require.NoError(t, err)
	require.Equal(t, testNode, node)

	answer = "../../etc/passwd"
	_, err = IMDSIdentity()(context.Background())
	require.ErrorContains(t, err, "instance id")
}

func TestDropCredentials(t *testing.T) {
	for _, v := range credentialVars {
		t.Setenv(v, "")
		require.NoError(t, os.Unsetenv(v))
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
	require.Equal(t, []string{"AWS_SECRET_ACCESS_KEY"}, DropCredentials(quiet()))
	_, there := os.LookupEnv("AWS_SECRET_ACCESS_KEY")
	require.False(t, there)
	require.NotEmpty(t, os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"))
	require.Empty(t, DropCredentials(quiet()))
}
