"""edge_sdk"""
