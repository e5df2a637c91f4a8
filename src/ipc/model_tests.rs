//! model_tests
