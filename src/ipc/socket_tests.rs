//! socket_tests
